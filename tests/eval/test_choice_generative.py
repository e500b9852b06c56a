"""Letter logits and sampled answers: equal to doing one problem at a time, on any number of
ranks."""

from __future__ import annotations

import pytest
import torch

from nanochat.engine import Engine, SamplingParams
from nanochat.eval.choice import evaluate_choice, letter_tokens, predict_letters
from nanochat.eval.generative import AnswerSampling, evaluate_generative, fit_prompt
from nanochat.eval.ranks import gather_in_order
from nanochat.tasks.base import Task
from nanochat.tasks.multiple_choice import MultipleChoice


class Choices(MultipleChoice):
    name = "choices"

    def __len__(self):
        return 23

    def __getitem__(self, index):
        letters = "ABCDE"[: 2 + index % 4]
        texts = [f"{index * k} things" * (1 + index % 3) for k in range(len(letters))]
        return self.conversation(
            f"number {index}?", list(letters), texts, letters[index % len(letters)]
        )


class Echo(Task):
    """Right when the answer has an even number of characters: both verdicts occur with any
    model."""

    name = "echo"

    def __len__(self):
        return 9

    def __getitem__(self, index):
        return {
            "messages": [
                {"role": "user", "content": f"say {index}" * (1 + index % 3)},
                {"role": "assistant", "content": ""},
            ]
        }

    def evaluate(self, conversation, completion):
        return len(completion) % 2 == 0


def test_choice_equals_one_forward_a_question(make_model, tokenizer, single, on_ranks):
    model, task = make_model(context=256), Choices()
    wanted = []
    for row in task:
        ids = tokenizer.render_for_completion(row)[-256:]
        logits = model(torch.tensor([ids]))[0, -1]
        scores = [logits[tokenizer.encode(letter)[0]].item() for letter in row["letters"]]
        wanted.append(row["letters"][scores.index(max(scores))] == row["messages"][-1]["content"])
    problems = list(range(len(task)))
    assert evaluate_choice(model, tokenizer, task, single, problems, max_tokens=700) == wanted
    assert 0 < sum(wanted) < len(wanted)
    some = [7, 2, 19, 4, 11]
    assert (
        on_ranks(3, lambda w: evaluate_choice(model, tokenizer, task, w, some))
        == [[wanted[i] for i in some]] * 3
    )


def test_only_the_letters_compete(model, tokenizer):
    prompt = tokenizer.encode("hello")
    logits = model(torch.tensor([prompt]))[0, -1]
    order = logits.argsort(descending=True).tolist()
    assert predict_letters(model, [prompt], [[order[5], order[3], order[9]]]) == [1]


def test_letters_must_be_tokens(tokenizer):
    assert letter_tokens(tokenizer, "AB") == [65, 66]
    with pytest.raises(ValueError, match="10 are not single tokens"):
        letter_tokens(tokenizer, ["A", "10"])


def test_gathering_in_order(on_ranks):
    items = list(range(11))
    for size in (1, 2, 3, 15):

        def share(world):
            return gather_in_order(world, items[world.rank :: world.world_size], len(items))

        assert on_ranks(size, share) == [items] * size


@pytest.mark.parametrize("temperature, samples", [(0.0, 1), (1.0, 3)])
def test_generation_equals_one_problem_at_a_time(
    model, tokenizer, single, on_ranks, temperature, samples
):
    task, sampling = (
        Echo(),
        AnswerSampling(max_new_tokens=12, temperature=temperature, top_k=20, num_samples=samples),
    )
    problems = [3, 1, 8, 0, 5]
    answers = evaluate_generative(Engine(model, tokenizer), task, single, problems, sampling)
    for number, (index, answer) in enumerate(zip(problems, answers, strict=True)):
        prompt = tokenizer.render_for_completion(task[index])
        engine = Engine(model, tokenizer)
        params = SamplingParams(
            temperature=temperature, top_k=20, max_tokens=12, seed=sampling.seed + number
        )
        [alone] = engine.complete([engine.submit(prompt, params, samples)])
        assert answer.texts == [completion.text for completion in alone]
        assert answer.correct == [len(text) % 2 == 0 for text in answer.texts]
    assert temperature == 0 or len({text for answer in answers for text in answer.texts}) > 2
    ranks = on_ranks(
        2, lambda w: evaluate_generative(Engine(model, tokenizer), task, w, problems, sampling)
    )
    assert ranks == [answers, answers]


def test_pass_at_k_of_an_answer(model, tokenizer, single):
    sampling = AnswerSampling(max_new_tokens=5, temperature=1.0, top_k=None, num_samples=4)
    answer = evaluate_generative(Engine(model, tokenizer), Echo(), single, [0], sampling)[0]
    assert answer.pass_at(1) == sum(answer.correct) / 4 and answer.pass_at(4) == float(
        any(answer.correct)
    )


def test_long_prompts_keep_their_beginning_token_and_their_end():
    prompt = list(range(100))
    assert fit_prompt(prompt, 200, 50) == prompt
    fitted = fit_prompt(prompt, 64, 500)
    assert len(fitted) == 48 and fitted[0] == 0 and fitted[1:] == prompt[-47:]


class Again(Echo):
    """Asks once more after the answer to the first question."""

    def second_try(self, conversation, completion):
        if "say 0" not in conversation["messages"][0]["content"]:
            return None
        asked = {"role": "user", "content": "say 5" * 3}
        return {"messages": [asked, {"role": "assistant", "content": ""}]}


def test_a_task_may_have_an_answer_asked_for_once_more(model, tokenizer, single):
    def texts(task):
        engine = Engine(model, tokenizer)
        sampling = AnswerSampling(max_new_tokens=8, temperature=1.0, top_k=None)
        answers = evaluate_generative(engine, task, single, range(9), sampling)
        return [answer.texts for answer in answers]

    plain, again = texts(Echo()), texts(Again())
    assert again[1:] == plain[1:] and again[0] != plain[0] and len(again[0]) == 1
