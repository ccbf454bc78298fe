"""Probes of buckets and datasets: whether they exist, where they lie, and what may be done there. All only read."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct

from batchform.adapters.bigquery_client import CALL_SECONDS, Access, closed, meaning, quoted, table_name, vendor_errors
from batchform.adapters.doctor_cloud import CloudProject
from batchform.adapters.storage.client import StorageClient
from batchform.adapters.storage.errors import StorageError
from batchform.adapters.vertex_wire import suits, suits_tables
from batchform.errors import AuthError, BatchformError
from batchform.run.doctor import Finding, Subject
from batchform.spec.model import GoogleCloud
from batchform.spec.remote import Address

if TYPE_CHECKING:
    from google.cloud.bigquery import Client

PATIENCE: Final = 10.0
"""Seconds in which a failed call is sent again: somebody waits for the answer."""

READ: Final = ("storage.objects.get", "storage.objects.list")
WRITE: Final = (*READ, "storage.objects.create", "storage.objects.delete")
_OBJECT_ROLES: Final = ("roles/storage.objectAdmin", "roles/storage.objectUser", "roles/storage.admin")
_TABLE_ROLES: Final = {"OWNER", "WRITER", "roles/bigquery.dataEditor", "roles/bigquery.dataOwner"}
EDITOR: Final = "roles/bigquery.dataEditor"
VIEWER: Final = "roles/bigquery.dataViewer"
_SHELL: Final = re.compile(r"\$\([^)]*\)")
_WHERE: Final = {"global": "us"}
"""Locations of jobs that are no place for a bucket or a dataset, and one that suits."""


class BucketUse(Struct, frozen=True):
    """What a project does in a bucket. at: bucket and prefix; writes: whether it writes there; location: of the jobs
    that read and write there too, "" if none do."""

    at: Address
    writes: bool
    location: str = ""

    @property
    def permissions(self) -> tuple[str, ...]:
        return WRITE if self.writes else READ


class Buckets:
    """Cloud Storage as some credentials see it. endpoint: of an emulator that stands in."""

    def __init__(self, settings: GoogleCloud, cloud: CloudProject, *, endpoint: str | None = None) -> None:
        self._cloud = cloud
        self._client = StorageClient(settings, timeout=20.0, retry_for=PATIENCE, endpoint=endpoint)

    def close(self) -> None:
        self._client.close()

    def check(self, about: Subject, use: BucketUse) -> Iterator[Finding]:
        """Whether the bucket is there, suits the jobs, and may be used."""
        bucket = use.at.bucket
        try:
            where = self._client.location(bucket)
        except StorageError as error:
            if error.status != 403:
                yield self._absent(about, use, error)
                return
            message = f"Where gs://{bucket} lies could not be asked: it takes storage.buckets.get."
            hint = "Only whether it suits is not known then. To see it:"
            yield about.unknown(
                "bucket", message, hint=hint, fix=self._grant(bucket, "roles/storage.legacyBucketReader")
            )
        except AuthError as error:
            yield about.error("bucket", error)
            return
        else:
            yield self._placed(about, use, where)
        yield self._rights(about, use)

    def _absent(self, about: Subject, use: BucketUse, error: StorageError) -> Finding:
        if error.status != 404:
            return about.error("bucket", error, member=self._cloud.member)
        location = f" --location={_WHERE.get(use.location, use.location)}" if use.location else ""
        soft = " --soft-delete-duration=0" if use.location else ""
        project = f" --project={self._cloud.project}" if self._cloud.project else ""
        fix = (
            f"gcloud storage buckets create gs://{use.at.bucket}{project}{location} --uniform-bucket-level-access{soft}"
        )
        return about.failure(
            "bucket", f"There is no bucket gs://{use.at.bucket}.", hint="Check the name, or make it:", fix=fix
        )

    def _placed(self, about: Subject, use: BucketUse, where: str) -> Finding:
        bucket = use.at.bucket
        if not use.location:
            return about.ok("bucket", f"gs://{bucket} is there, in {where}.")
        if suits(where, use.location):
            return about.ok("bucket", f"gs://{bucket} is there, in {where}, where jobs of {use.location} can use it.")
        other, location = f"{bucket}-{use.location}", _WHERE.get(use.location, use.location)
        message = f"gs://{bucket} lies in {where}, where jobs of {use.location} cannot use it."
        hint = f"Set `location` to where the bucket is, or make another and name it as staging: gs://{other}"
        fix = (
            f"gcloud storage buckets create gs://{other} --project={self._cloud.project} --location={location} "
            "--uniform-bucket-level-access --soft-delete-duration=0"
        )
        return about.failure("bucket-region", message, hint=hint, fix=fix)

    def _rights(self, about: Subject, use: BucketUse) -> Finding:
        """Rights on a part of a bucket show only at an object in it: where there is none, nothing is sure."""
        try:
            missing = self._missing(use)
            there = next(iter(self._client.list(use.at, at_most=1)), None) if missing else None
            held = self._client.allowed_at(there.at, *missing) if there else None
        except BatchformError as error:
            if getattr(error, "status", 0) == 403:
                fix = self._grant(use.at.bucket, _role(use))
                return about.failure("bucket-rights", error.message, fix=fix)
            return about.error("bucket-rights", error, member=self._cloud.member)
        if not missing or (held is not None and held.issuperset(missing)):
            done = "read and written" if use.writes else "read"
            return about.ok("bucket-rights", f"Objects at {use.at} may be {done}.")
        message = f"The credentials lack {', '.join(missing)} on gs://{use.at.bucket}."
        fix = self._grant(use.at.bucket, _role(use))
        if held is None and len(missing) < len(use.permissions):
            hint = "Rights on a folder of it do not show where it is empty. If there are none:"
            return about.warning("bucket-rights", message, hint=hint, fix=fix)
        return about.failure("bucket-rights", message, fix=fix)

    def _missing(self, use: BucketUse) -> list[str]:
        held = self._client.allowed(use.at.bucket, *use.permissions)
        return [name for name in use.permissions if name not in held]

    def _grant(self, bucket: str, role: str) -> str:
        return (
            f"gcloud storage buckets add-iam-policy-binding gs://{bucket} --member={self._cloud.member} --role={role}"
        )

    def check_agent(self, about: Subject, use: BucketUse) -> Finding | None:
        """Whether the service agent of Vertex AI may use a bucket of another project; None for one of the same."""
        bucket, agent = use.at.bucket, self._cloud.agent
        if not agent:
            return None
        fix = (
            f"gcloud storage buckets add-iam-policy-binding gs://{bucket} --member=serviceAccount:{agent} "
            "--role=roles/storage.objectAdmin"
        )
        try:
            owner = self._client.owner(bucket)
            if owner == self._cloud.number:
                return None
            roles = self._client.roles(bucket, f"serviceAccount:{agent}")
        except BatchformError as error:
            message = f"What {agent} may do in gs://{bucket} could not be asked: {error.message}"
            hint = "In its own project it may. If the bucket is another project's:"
            return about.unknown("service-agent-bucket", message, hint=hint, fix=fix)
        if any(role in _OBJECT_ROLES for role in roles):
            return about.ok("service-agent-bucket", f"{agent} may use gs://{bucket}, which is project {owner}'s.")
        message = f"gs://{bucket} is project {owner}'s, and {agent}, as whom jobs read and write, has no role there."
        return about.failure("service-agent-bucket", message, fix=fix)


def _role(use: BucketUse) -> str:
    return f"roles/storage.{'objectUser' if use.writes else 'objectViewer'}"


class Datasets:
    """BigQuery as some credentials see it."""

    def __init__(
        self, settings: GoogleCloud, cloud: CloudProject, *, env: Mapping[str, str], project: str | None
    ) -> None:
        self._cloud, self._project = cloud, project
        self._access = Access(settings, env, retry_seconds=PATIENCE)

    @cached_property
    def _client(self) -> Client:
        return self._access.client(project=self._project, location=None)

    def close(self) -> None:
        if "_client" in self.__dict__:
            closed(self._client)

    def check_dataset(
        self, about: Subject, dataset: str, *, location: str = "", writes: bool = True
    ) -> Iterator[Finding]:
        """Whether a dataset is there, suits jobs of `location`, and may be seen. dataset: `[project.]dataset`; writes:
        whether tables are written there."""
        try:
            name = dataset if "." in dataset or ":" in dataset else f"{self._client.project}.{dataset}"
            project, _, short = name.replace(":", ".").rpartition(".")
            found = self._client.get_dataset(name, retry=self._access.retry, timeout=CALL_SECONDS)
        except AuthError as error:
            yield about.error("dataset", error)
            return
        except vendor_errors() as error:
            yield self._unseen(about, error, name, location, role=EDITOR if writes else VIEWER)
            return
        where = str(found.location or "")
        if not location or suits_tables(where, location):
            suited = f", where jobs of {location} can use it" if location else ""
            yield about.ok("dataset", f"Dataset {name} is there, in {where}{suited}.")
            if location and self._cloud.agent and project != self._cloud.project:
                yield self._agent_in(about, found, project, short)
            return
        other = f"{short}_{location.replace('-', '_')}"
        message = f"Dataset {name} lies in {where}, where jobs of {location} cannot use it."
        hint = f"Set `location` to where the dataset is, or make another and name it as dataset: {other}"
        fix = f"bq mk --dataset --location={_WHERE.get(location, location)} {project}:{other}"
        yield about.failure("dataset-region", message, hint=hint, fix=fix)

    def _agent_in(self, about: Subject, dataset: Any, project: str, short: str) -> Finding:
        """Whether the service agent of Vertex AI may use a dataset of another project, by the dataset's own list."""
        agent = self._cloud.agent
        roles = {e.role for e in dataset.access_entries if e.entity_id == agent}
        if roles & _TABLE_ROLES:
            return about.ok("service-agent-dataset", f"{agent} may write into {project}.{short}.")
        message = (
            f"{project}.{short} is another project's, and its own list does not let {agent} write, as whom jobs do."
        )
        hint = "Roles on that whole project do not show there. If it has none:"
        return about.warning(
            "service-agent-dataset",
            message,
            hint=hint,
            fix=self._grant(project, short, member=f"serviceAccount:{agent}"),
        )

    def _unseen(self, about: Subject, error: BaseException, name: str, location: str, *, role: str) -> Finding:
        project, _, short = name.replace(":", ".").rpartition(".")
        code = getattr(error, "code", 0)
        if code == 404:
            region = f" --location={_WHERE.get(location, location)}" if location else ""
            fix = f"bq mk --dataset{region} {project}:{short}"
            message = f"There is no dataset {project}.{short}, or these credentials may not see it."
            return about.failure("dataset", message, hint="Check the name, or make it:", fix=fix)
        found = meaning(error)
        if code == 403:
            return about.failure(
                "dataset", f"Dataset {name}: {found.said}.", fix=self._grant(project, short, role=role)
            )
        return about.failure("dataset", f"Dataset {name}: {found.said}.", hint=found.hint)

    def _grant(self, project: str, dataset: str, *, member: str = "", role: str = EDITOR) -> str:
        who = _SHELL.sub(r"""'"\g<0>"'""", member or self._cloud.member)  # the shell fills nothing into single quotes
        return f"bq query --use_legacy_sql=false 'GRANT `{role}` ON SCHEMA `{project}.{dataset}` TO \"{who}\"'"

    def check_jobs(self, about: Subject) -> Finding:
        """Whether queries may be run: by a dry run of one that reads nothing."""
        return self._dry(about, "bigquery-jobs", "SELECT 1", "Queries may be run")

    def check_table_read(self, about: Subject, table: str) -> Finding:
        """Whether a table can be read: by a dry run, which bills nothing."""
        try:
            name = table_name(table, project=self._client.project)
        except (ValueError, AuthError) as error:
            return about.failure("table", f"{error}.".replace("..", "."))
        project, dataset, _ = name.rsplit(".", 2)
        grant = self._grant(project, dataset, role=VIEWER)
        return self._dry(about, "table", f"SELECT * FROM {quoted(name)}", f"Table {name} may be read", grant=grant)

    def check_table_write(self, about: Subject, table: str) -> Finding:
        """Whether rows of a table may be changed. Of one that is not there yet, nothing can be told."""
        from google.cloud.exceptions import NotFound

        wanted = ["bigquery.tables.updateData", "bigquery.tables.getData"]
        try:
            name = table_name(table, project=self._client.project)
            found: Any = self._client.get_table(name, retry=self._access.retry, timeout=CALL_SECONDS)
            answer = self._client.test_iam_permissions(found, wanted, retry=self._access.retry, timeout=CALL_SECONDS)
        except NotFound:
            project, dataset, _ = name.rsplit(".", 2)
            message = f"Table {name} is not there yet; whether it may be made shows when it is made."
            hint = "It takes roles/bigquery.dataEditor on the dataset; if that is missing:"
            return about.unknown("table-rights", message, hint=hint, fix=self._grant(project, dataset))
        except (ValueError, AuthError) as error:
            return about.failure("table-rights", str(error))
        except vendor_errors() as error:
            return about.unknown("table-rights", f"Rights on table {name} could not be asked: {meaning(error).said}.")
        missing = [p for p in wanted if p not in answer.get("permissions", ())]
        if not missing:
            return about.ok("table-rights", f"Rows of table {name} may be changed.")
        project, dataset, _ = name.rsplit(".", 2)
        message = f"The credentials lack {', '.join(missing)} on table {name}."
        return about.failure("table-rights", message, fix=self._grant(project, dataset))

    def _dry(self, about: Subject, check: str, sql: str, done: str, *, grant: str = "") -> Finding:
        """grant: what mends a refusal that is not about running queries."""
        from google.cloud.bigquery import QueryJobConfig

        try:
            config = QueryJobConfig(dry_run=True, use_query_cache=False)
            job = self._client.query(
                sql, job_config=config, retry=self._access.retry, job_retry=None, timeout=CALL_SECONDS
            )
            size = int(job.total_bytes_processed or 0)
        except AuthError as error:
            return about.error(check, error)
        except vendor_errors() as error:
            found = meaning(error)
            denied = getattr(error, "code", 0) == 403
            fix = grant if denied else ""
            if denied and "bigquery.jobs.create" in found.said:
                fix = (
                    f"gcloud projects add-iam-policy-binding {self._client.project} --member={self._cloud.member} "
                    "--role=roles/bigquery.jobUser --condition=None"
                )
            return about.failure(check, f"{sql}: {found.said}.", hint="" if fix else found.hint, fix=fix)
        return about.ok(check, f"{done}, billed to {self._client.project}{f': {size:,} bytes' if size else ''}.")
