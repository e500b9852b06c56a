"""Rows of query logs: what was asked, and which of it finished, was a person's and only read.

ClickHouse `system.query_log`, BigQuery `INFORMATION_SCHEMA.JOBS` and audit logs, and any table
with a column named for the query."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from nanochat.sql.comments import question_in
from nanochat.sql.record_files import QUERY_COLUMNS

# Why a row of a log is not learnt from.
FAILED = "queries that failed"
STARTED = "starts of queries, whose ends are rows of their own"
PARTIAL = "parts of distributed queries"
SCRIPTS = "scripts, whose statements are rows of their own"
WRITES = "statements that write or change something"
MACHINES = "queries of programs (service accounts, monitoring)"
UNFINISHED = "jobs that have not finished"
CUT_IN_LOG = "queries that the log has cut off"
NO_TEXT = "rows without a query"
DAMAGED = "queries with damaged text"

_ASKED = ("question", "nl_question", "prompt", "description")
_BESIDE = ("title", "comment", "log_comment", "name")
_CLICKHOUSE = frozenset(
    "query_kind query_duration_ms is_initial_query exception_code normalized_query_hash read_rows "
    "initial_query_id".split()
)
_BIGQUERY = frozenset(
    "job_type statement_type total_bytes_processed total_slot_ms total_bytes_billed job_id "
    "referenced_tables".split()
)
_AUDIT = ("protopayload_auditlog", "protoPayload", "protopayload_auditlog.metadataJson")
_MACHINE_AGENT = re.compile(
    r"grafana|prometheus|exporter|datadog|zabbix|healthcheck|health-check|kube-probe|nagios|telegraf|"
    r"airflow|dagster|dbt|fivetran|airbyte|metabase-sync",
    re.IGNORECASE,
)
_MACHINE_USER = re.compile(
    r"gserviceaccount\.com$|^(svc|service|robot|bot|monitor\w*|grafana|exporter|airflow|dbt|etl)([_.@-]|$)",
    re.IGNORECASE,
)
_READS = ("SELECT", "", "NONE", "UNKNOWN")


@dataclass(frozen=True, kw_only=True)
class LogEntry:
    """A row of a log. query: empty where `dropped` says why. question: what stands beside the
    query, if anything does.
    """

    query: str = ""
    dialect: str = ""
    dropped: str = ""
    question: str = ""


def log_format(values: dict[str, Any], query_column: str = "") -> str:
    """clickhouse, bigquery, audit or table, by the names of a row; "" for what is no log."""
    names = {name.casefold() for name in values}
    if any(name in values for name in _AUDIT):
        return "audit"
    if "query" in names and names & _BIGQUERY:
        return "bigquery"
    if "query" in names and names & _CLICKHOUSE:
        return "clickhouse"
    return "table" if _query_name(values, query_column) else ""


def read_entry(values: dict[str, Any], form: str, query_column: str = "") -> LogEntry:
    """One row of a log of that format."""
    if form == "audit":
        entry = _audit(values)
    elif form == "bigquery":
        entry = _bigquery(values)
    elif form == "clickhouse":
        entry = _clickhouse(values)
    else:
        query = _text(values.get(_query_name(values, query_column)))
        entry = LogEntry(query=query, question=_question(values))
    if entry.dropped:
        return entry
    if not entry.query.strip():
        return LogEntry(dropped=NO_TEXT)
    return LogEntry(dropped=DAMAGED) if "\ufffd" in entry.query else entry


def _query_name(values: dict[str, Any], query_column: str) -> str:
    known = {name.casefold(): name for name in values}
    wanted = (query_column.casefold(),) if query_column else QUERY_COLUMNS
    return next((known[name] for name in wanted if name in known), "")


def _question(values: dict[str, Any]) -> str:
    known = {name.casefold(): _text(value).strip() for name, value in values.items()}
    asked = next((known[name] for name in _ASKED if known.get(name)), "")
    return asked or question_in([known[name] for name in _BESIDE if known.get(name)])


def _clickhouse(values: dict[str, Any]) -> LogEntry:
    kind = _text(values.get("type"))
    written = _text(values.get("query_kind")).upper()
    if kind in ("QueryStart", "1"):
        return LogEntry(dropped=STARTED)
    if kind not in ("QueryFinish", "2", "") or _number(values.get("exception_code")):
        return LogEntry(dropped=FAILED)
    if _text(values.get("is_initial_query")).casefold() in ("0", "false"):
        return LogEntry(dropped=PARTIAL)
    if written not in _READS:
        return LogEntry(dropped=WRITES)
    agents = [values.get(name) for name in ("http_user_agent", "client_name")]
    if any(_MACHINE_AGENT.search(_text(agent)) for agent in agents):
        return LogEntry(dropped=MACHINES)
    if _MACHINE_USER.search(_text(values.get("user"))):
        return LogEntry(dropped=MACHINES)
    query = _text(values.get("query"))
    return LogEntry(query=query, dialect="clickhouse", question=_question(values))


def _bigquery(values: dict[str, Any]) -> LogEntry:
    if _text(values.get("job_type")).upper() not in ("QUERY", ""):
        return LogEntry(dropped=WRITES)  # loads, copies, extracts
    if _text(values.get("state")).upper() not in ("DONE", ""):
        return LogEntry(dropped=UNFINISHED)
    if _fault(values.get("error_result")) or _text(values.get("error_result.reason")):
        return LogEntry(dropped=FAILED)
    user = _text(values.get("user_email"))
    return _bigquery_query(values.get("query"), values.get("statement_type"), user)


def _audit(values: dict[str, Any]) -> LogEntry:
    payload = next((values[name] for name in _AUDIT if name in values), None)
    payload = _decoded(payload)
    metadata = payload
    for name in ("metadataJson", "metadata"):
        if isinstance(payload, dict) and name in payload:
            metadata = _decoded(payload[name])
    job = _inside(metadata, "jobChange", "job") or _inside(metadata, "jobInsertion", "job")
    config = _inside(job, "jobConfig", "queryConfig")
    if not isinstance(config, dict):
        return LogEntry(dropped=NO_TEXT)
    if _fault(_inside(job, "jobStatus", "errorResult")) or _fault(_inside(payload, "status")):
        return LogEntry(dropped=FAILED)
    if _text(_inside(job, "jobStatus", "jobState")).upper() not in ("DONE", ""):
        return LogEntry(dropped=UNFINISHED)
    if _text(config.get("queryTruncated")).casefold() == "true":
        return LogEntry(dropped=CUT_IN_LOG)
    user = _text(_inside(payload, "authenticationInfo", "principalEmail"))
    return _bigquery_query(config.get("query"), config.get("statementType"), user)


def _bigquery_query(query: Any, statement: Any, user: str) -> LogEntry:
    written = _text(statement).upper()
    if written == "SCRIPT":
        return LogEntry(dropped=SCRIPTS)
    if written not in _READS:
        return LogEntry(dropped=WRITES)
    if _MACHINE_USER.search(user):
        return LogEntry(dropped=MACHINES)
    return LogEntry(query=_text(query), dialect="bigquery")


def _fault(value: Any) -> bool:
    """Whether an error is there: not an object without a reason, as exports write for none."""
    value = _decoded(value)
    if isinstance(value, dict):
        return any(part not in (None, "", 0, "0", [], {}) for part in value.values())
    return _text(value).casefold() not in ("", "null", "none")


def _inside(value: Any, *names: str) -> Any:
    for name in names:
        value = _decoded(value)
        value = value.get(name) if isinstance(value, dict) else None
    return _decoded(value)


def _decoded(value: Any) -> Any:
    """JSON in a string is what it says."""
    if isinstance(value, str) and value[:1] in "{[" and value:
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return "" if value is None else str(value)


def _number(value: Any) -> int:
    try:
        return int(float(_text(value) or 0))
    except ValueError:
        return 0
