"""The commands there are: what each runs and what settings it takes, imported only when asked
for."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nanochat.runtime.suggest import suggestion


@dataclass(frozen=True)
class Command:
    """What a command runs: `function(config)`, `function(config, world)`, or with no config class
    `function(words)`.

    prints: what it prints is all it gives, so it ends when that cannot be printed. The others
    leave files behind, or serve, and go on.
    """

    about: str
    function: str
    config: str | None = None
    prints: bool = False


COMMANDS = {
    "dataset": Command(
        "download or make text shards",
        "nanochat.dataset.__main__:run",
        "nanochat.dataset.__main__:DatasetConfig",
    ),
    "data": Command("check FILE | fetch: conversations files; data for offline machines", ""),
    "tok-train": Command(
        "train the tokenizer",
        "nanochat.train.tok_train:tok_train",
        "nanochat.train.tok_train:TokTrainConfig",
    ),
    "tok-eval": Command(
        "compare the tokenizer with GPT-2 and GPT-4",
        "nanochat.eval.tok_eval:tok_eval",
        "nanochat.eval.tok_eval:TokEvalConfig",
    ),
    "doctor": Command(
        "what is missing before a run starts",
        "nanochat.launch.doctor.doctor:doctor",
        "nanochat.launch.doctor.doctor:DoctorConfig",
        prints=True,
    ),
    "plan": Command(
        "memory, hours and cost of a run",
        "nanochat.train.plan:plan",
        "nanochat.train.plan:PlanConfig",
        prints=True,
    ),
    "base-train": Command(
        "pretrain", "nanochat.train.stages:base", "nanochat.train.configs:BaseConfig"
    ),
    "base-loss": Command(
        "bits per byte and samples",
        "nanochat.eval.base_loss:base_loss",
        "nanochat.eval.base_loss:BaseLossConfig",
    ),
    "base-eval": Command(
        "CORE", "nanochat.eval.base_eval:base_eval", "nanochat.eval.base_eval:BaseEvalConfig"
    ),
    "mid-train": Command(
        "midtrain on conversations and tools",
        "nanochat.train.stages:mid",
        "nanochat.train.configs:MidConfig",
    ),
    "chat-sft": Command(
        "finetune on conversations", "nanochat.train.stages:sft", "nanochat.train.configs:SFTConfig"
    ),
    "chat-rl": Command(
        "reinforcement learning", "nanochat.train.stages:rl", "nanochat.train.rl_configs:RLConfig"
    ),
    "chat-eval": Command(
        "chat benchmarks and the exam",
        "nanochat.eval.chat_eval:chat_eval",
        "nanochat.eval.chat_eval:ChatEvalConfig",
    ),
    "chat-cli": Command(
        "chat in the terminal",
        "nanochat.serve.terminal:chat_cli",
        "nanochat.serve.terminal:ChatCLIConfig",
        prints=True,
    ),
    "chat-web": Command(
        "chat in the browser",
        "nanochat.serve.chat_web:chat_web",
        "nanochat.serve.web_config:ChatWebConfig",
    ),
    "users": Command("add | list | disable | passwd | role | limits | key: accounts", ""),
    "usage": Command(
        "tokens, latency and cost by user, key, model or day",
        "nanochat.serve.usage_command:usage",
        "nanochat.serve.usage_command:UsageConfig",
        prints=True,
    ),
    "db": Command("upgrade | backup | restore: the database of the server", ""),
    "lm-eval": Command(
        "tasks of lm-evaluation-harness",
        "nanochat.eval.lm_harness:lm_eval",
        "nanochat.eval.lm_harness:LMEvalConfig",
    ),
    "pull": Command(
        "a checkpoint from the hub, an address or a folder",
        "nanochat.exchange.pull:pull",
        "nanochat.exchange.pull:PullConfig",
    ),
    "push": Command(
        "a checkpoint to the hub",
        "nanochat.exchange.push:push",
        "nanochat.exchange.push:PushConfig",
    ),
    "export": Command("hf | gguf | mlx: a checkpoint in other programs' formats", ""),
    "bench": Command("serve | decode: latency and throughput of the server and of the engine", ""),
    "compare": Command(
        "which differences between two runs exceed noise",
        "nanochat.eval.compare:compare",
        "nanochat.eval.compare:CompareConfig",
        prints=True,
    ),
    "feedback": Command("export | train: what users corrected, as data and as a model", ""),
    "sql": Command("build | train | shop: from query logs to a model that writes SQL", ""),
    "report": Command(
        "generate | reset: the report of a run",
        "nanochat.report.__main__:report",
        "nanochat.report.__main__:ReportConfig",
    ),
    "models": Command(
        "list | note | diff: the models there are",
        "nanochat.report.models_command:models",
        "nanochat.report.models_command:ModelsConfig",
        prints=True,
    ),
    "cluster": Command(
        "init | status: a SLURM cluster's settings, and where your jobs are",
        "nanochat.launch.cluster.cluster:cluster",
        "nanochat.launch.cluster.cluster:ClusterConfig",
    ),
    "cost": Command(
        "hours and dollars of each stage, beside the plan's",
        "nanochat.report.cost_command:show_cost",
        "nanochat.report.cost_command:CostConfig",
        prints=True,
    ),
    "recipe": Command(
        "run | show | list: a whole pipeline",
        "nanochat.launch.local:recipe",
        "nanochat.launch.recipes:RecipeConfig",
    ),
    "sweep": Command(
        "one command over many settings: a table and a picture",
        "nanochat.launch.sweep:sweep",
        "nanochat.launch.sweep:SweepConfig",
    ),
}
GROUPS = {
    "data": {
        "check": Command(
            "check and preview a conversations file",
            "nanochat.dataset.check:data_check",
            "nanochat.dataset.check:DataCheckConfig",
            prints=True,
        ),
        "fetch": Command(
            "download eval bundle, word list, task data",
            "nanochat.launch.fetch:fetch",
            "nanochat.launch.fetch:FetchConfig",
        ),
    },
    "feedback": {
        "export": Command(
            "write accepted feedback as conversations and preference pairs",
            "nanochat.feedback.feedback_export:export",
            "nanochat.feedback.feedback_export:FeedbackExportConfig",
        ),
        "train": Command(
            "a new checkpoint from accepted feedback, compared with the old one",
            "nanochat.feedback.feedback_train:feedback_train",
            "nanochat.feedback.feedback_train:FeedbackTrainConfig",
        ),
    },
    "sql": {
        "build": Command(
            "query logs, definitions and documentation -> conversations to train on",
            "nanochat.sql.sql_build:sql_build",
            "nanochat.sql.sql_build:SQLBuildConfig",
        ),
        "train": Command(
            "fine-tune on questions about your databases, examined before and after",
            "nanochat.train.sql_train:sql_train",
            "nanochat.train.sql_train:SQLTrainConfig",
        ),
        "shop": Command(
            "make the embedded shop: a database, its query log, its documentation",
            "nanochat.sql.shop:sql_shop",
            "nanochat.sql.shop:SQLShopConfig",
        ),
    },
    "users": {
        "add": Command(
            "make an account",
            "nanochat.serve.users_command:users_add",
            "nanochat.serve.users_command:UsersAddConfig",
        ),
        "list": Command(
            "everybody",
            "nanochat.serve.users_command:users_list",
            "nanochat.serve.users_command:UsersListConfig",
            prints=True,
        ),
        "disable": Command(
            "keep a user out",
            "nanochat.serve.users_command:users_disable",
            "nanochat.serve.users_command:UsersDisableConfig",
        ),
        "passwd": Command(
            "set a password",
            "nanochat.serve.users_command:users_passwd",
            "nanochat.serve.users_command:UsersPasswdConfig",
        ),
        "role": Command(
            "user or admin",
            "nanochat.serve.users_command:users_role",
            "nanochat.serve.users_command:UsersRoleConfig",
        ),
        "limits": Command(
            "tokens a day, requests a minute",
            "nanochat.serve.users_command:users_limits",
            "nanochat.serve.users_command:UsersLimitsConfig",
        ),
        "key": Command(
            "make an API key",
            "nanochat.serve.users_command:users_key",
            "nanochat.serve.users_command:UsersKeyConfig",
            prints=True,
        ),
    },
    "db": {
        "upgrade": Command(
            "bring the tables to this version",
            "nanochat.serve.db_command:db_upgrade",
            "nanochat.serve.db_command:DbUpgradeConfig",
        ),
        "backup": Command(
            "copy everything into one file",
            "nanochat.serve.db_command:db_backup",
            "nanochat.serve.db_command:DbBackupConfig",
        ),
        "restore": Command(
            "put a copy into an empty database",
            "nanochat.serve.db_command:db_restore",
            "nanochat.serve.db_command:DbRestoreConfig",
        ),
    },
    "export": {
        "hf": Command(
            "for Hugging Face transformers, vLLM, SGLang",
            "nanochat.exchange.export_hf:export_hf",
            "nanochat.exchange.export_hf:HFExportConfig",
        ),
        "gguf": Command(
            "for llama.cpp and Ollama",
            "nanochat.exchange.export_gguf:export_gguf",
            "nanochat.exchange.export_gguf:GGUFExportConfig",
        ),
        "mlx": Command(
            "for mlx-lm, on Apple's chips",
            "nanochat.exchange.export_mlx:export_mlx",
            "nanochat.exchange.export_mlx:MLXExportConfig",
        ),
    },
    "bench": {
        "serve": Command(
            "latency and throughput of a server over the number of clients",
            "bench.serve:bench_serve",
            "bench.serve:ServeBenchConfig",
            prints=True,
        ),
        "decode": Command(
            "tokens/s of the engine against the memory's bandwidth",
            "bench.decode:bench_decode",
            "bench.decode:DecodeBenchConfig",
            prints=True,
        ),
    },
}


def load(path: str) -> Any:
    """`package.module:name` -> the object. Raises ValueError where this version does not have
    it."""
    module, _, name = path.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except (ModuleNotFoundError, AttributeError) as error:
        if getattr(error, "name", None) in (module, name):
            raise ValueError(
                f"{module} has no {name}: this version of nanochat does not have the command"
            ) from None
        raise


# What brings a package that not every installation has.
EXTRAS = {
    "fastapi": "serve",
    "starlette": "serve",
    "pydantic": "serve",
    "anyio": "serve",
    "uvicorn": "serve",
    "prometheus_client": "serve",
    "sqlalchemy": "serve",
    "alembic": "serve",
    "argon2": "serve",
    "psycopg": "postgres",
    "authlib": "oidc",
    "joserfc": "oidc",
}


def needs_extra(error: ModuleNotFoundError) -> ValueError | None:
    """The error for people, when a package is missing that an extra brings."""
    extra = EXTRAS.get((error.name or "").partition(".")[0])
    if extra is None:
        return None
    return ValueError(
        f"this needs the extra {extra} ({error.name} is not installed): "
        f"pip install 'nanochat[{extra}]'"
    )


def find(words: Sequence[str]) -> tuple[str, Command, list[str]]:
    """(full name, command, remaining words). Raises ValueError for a command there is not."""
    name, rest = words[0].replace("_", "-"), list(words[1:])
    if name not in COMMANDS:
        raise ValueError(f"{words[0]}: unknown command{suggestion(name, COMMANDS)}")
    if name not in GROUPS:
        return name, COMMANDS[name], rest
    table = GROUPS[name]
    if not rest or rest[0] not in table:
        said = f"{name} {rest[0]}: unknown command" if rest else f"{name}: needs a second word"
        raise ValueError(f"{said}; use one of: {', '.join(f'nanochat {name} {k}' for k in table)}")
    return f"{name} {rest[0]}", table[rest[0]], rest[1:]


def call(name: str, command: Command, words: list[str]) -> Any:
    """Parse the words and run the command, inside a World where the function takes one. ValueError
    when it needs an extra that is not installed.
    """
    try:
        return run_command(name, command, words)
    except ModuleNotFoundError as error:
        raise needs_extra(error) or error from None


def run_command(name: str, command: Command, words: list[str]) -> Any:
    if command.config is None:
        return load(command.function)(words[1:] if words[:1] == ["--"] else words)
    from nanochat.config import parse

    config = parse(load(command.config), words, prog=f"nanochat {name}")
    function = load(command.function)
    if "world" not in inspect.signature(function).parameters:
        return function(config)
    from nanochat.runtime.world import init_world

    world = init_world(getattr(config, "device_type", None))
    try:
        return function(config, world)
    finally:
        world.close()
