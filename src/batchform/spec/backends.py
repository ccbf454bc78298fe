"""The services that take jobs, as `backends:` in batchform.yaml names them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from batchform.spec.fields import Count, Duration, Strict, Wire

PROJECT_ID = r"^([a-z0-9.-]+:)?[a-z][a-z0-9-]{4,61}[a-z0-9]$"
LOCATION = r"^(global|us|eu|[a-z]+-[a-z]+[0-9]+)$"
STAGING = r"^gs://[a-z0-9][a-z0-9._-]{1,220}[a-z0-9](/[^\s#?*\[\]]+)?/?$"
DATASET = r"^(([a-z0-9.-]+:)?[a-z][a-z0-9-]{4,61}[a-z0-9]\.)?[A-Za-z0-9_]{1,1024}$"
LABEL_NAME = r"^[a-z][a-z0-9_-]{0,62}$"
LABEL_VALUE = r"^[a-z0-9_-]{0,63}$"
SERVICE_ACCOUNT = r"^[^\s@]+@[^\s@]+$"

ProjectId = Annotated[str, StringConstraints(pattern=PROJECT_ID)]
Location = Annotated[str, StringConstraints(pattern=LOCATION)]
Staging = Annotated[str, StringConstraints(pattern=STAGING)]
Dataset = Annotated[str, StringConstraints(pattern=DATASET)]
LabelName = Annotated[str, StringConstraints(pattern=LABEL_NAME)]
Resume = Literal["auto", "never"]
RawResults = Literal["ledger", "bucket"]
LabelValue = Annotated[str, StringConstraints(pattern=LABEL_VALUE)]


class _BackendBase(Strict):
    settle: Duration = Field(
        900.0, description="How long a submission of unknown outcome waits before it is sent again."
    )
    poll: Duration = Field(30.0, description="Time between two looks at a job.")
    timeout: Duration = Field(60.0, description="Limit of each call.")
    max_rows_per_job: Count = Field(50_000, description="Rows in one job.")
    max_bytes_per_job: Count = Field(1_500_000_000, description="Bytes of one job's JSONL.")
    max_jobs_in_flight: Count = Field(20, description="Jobs at work at once.")
    max_enqueued_tokens: Count | None = Field(None, description="Estimated input tokens of all jobs at work at once.")
    cleanup: bool = Field(default=True, description="Delete uploaded inputs once every row of the job is settled.")


class EmulatorBackend(_BackendBase):
    """The embedded emulator: a loopback server with deterministic answers. Nothing leaves the machine."""

    type: Literal["emulator"] = Field(description="The embedded emulator.")
    url: str | None = Field(
        None, description="A running `batchform emulator serve`; without it one is started in process."
    )
    job_seconds: Duration = Field(2.0, description="How long a job of the in-process emulator takes.")
    faults: str | None = Field(
        None, description="A YAML file of what goes wrong in the in-process emulator; see docs/emulator.md."
    )
    cloud: Literal["gemini", "vertex"] = Field(
        "gemini", description="Which API is emulated: the Gemini API, or Vertex AI with its Cloud Storage and BigQuery."
    )
    project: ProjectId = Field("emulated-project", description="vertex: project of the jobs.")
    location: Location = Field("us-central1", description="vertex: where jobs run.")
    staging: Staging = Field("gs://batchform-staging", description="vertex: where inputs and results lie.")
    via: Literal["storage", "bigquery"] = Field("storage", description="vertex: what carries inputs and results.")
    dataset: Dataset = Field("batchform_staging", description="vertex: dataset of the tables, with `via: bigquery`.")
    resume: Resume = Field("never", description="vertex: whether a job that was cut short is gone on with.")
    raw_results: RawResults = Field("ledger", description="vertex: where raw results are kept.")
    settle: Duration = Field(
        10.0, description="How long a submission of unknown outcome waits before it is sent again."
    )
    poll: Duration = Field(0.5, description="Time between two looks at a job.")


class GeminiBackend(_BackendBase):
    """The Gemini Developer API. The key comes from the environment, never from a file."""

    type: Literal["gemini"] = Field(description="The Gemini Developer API.")
    base_url: str | None = Wire(None, description="A gateway or an emulator in place of Google's endpoint.")
    api_key_env: str | None = Field(
        None, description="Environment variable with the key; default GOOGLE_API_KEY, then GEMINI_API_KEY."
    )
    api_version: str | None = Field(None, description="API version; default the SDK's own.")
    realm: Literal["google", "emulator"] | None = Wire(
        None, description="Whose answers these are; default google, or emulator when base_url is a loopback address."
    )


class VertexBackend(_BackendBase):
    """Vertex AI of a Google Cloud project. Credentials are those of `google_cloud`, unless others are named here."""

    type: Literal["vertex"] = Field(description="Vertex AI.")
    project: ProjectId = Field(description="Id of the Google Cloud project whose jobs these are.")
    location: Location = Field(description="Where jobs run: a region, `global`, or a multi-region (`us`, `eu`).")
    staging: Staging | None = Field(
        None, description="Bucket and prefix for inputs and results: `gs://bucket/prefix`. Needed with `via: storage`."
    )
    via: Literal["storage", "bigquery"] = Field(
        "storage", description="What carries inputs and results: files in Cloud Storage, or tables in BigQuery."
    )
    dataset: Dataset | None = Field(
        None, description="Dataset for tables of inputs and results: `dataset` or `project.dataset`, of the location "
        "of the jobs. Needed with `via: bigquery`."
    )  # fmt: skip
    resume: Resume = Field(
        "never", description="Whether a new job may go on with what one that was cut short has written: `auto`, where "
        "that moves fewer bytes, or `never`; see docs/google-cloud.md."
    )  # fmt: skip
    raw_results: RawResults = Field(
        "ledger", description="Where raw results are kept: copied to the `ledger`, or left in the `bucket` where "
        "Vertex AI wrote them, and read there when they are needed; see docs/google-cloud.md."
    )  # fmt: skip
    credentials: str | None = Field(
        None, description="A credentials file outside of the project; default that of `google_cloud`."
    )  # fmt: skip
    impersonate: Annotated[str, StringConstraints(pattern=SERVICE_ACCOUNT)] | None = Field(
        None, description="Service account to act as, by its address; default that of `google_cloud`."
    )  # fmt: skip
    api_key_env: str | None = Field(
        None, description="Environment variable with an API key for Vertex AI itself, in place of credentials; Cloud "
        "Storage and BigQuery take no keys."
    )  # fmt: skip
    labels: dict[LabelName, LabelValue] = Field(
        default_factory=dict, description="Labels of every job, beside batchform's own."
    )
    base_url: str | None = Wire(None, description="A gateway or an emulator in place of Google's endpoint.")
    api_version: str | None = Field(None, description="API version; default the SDK's own.")
    realm: Literal["google", "emulator"] | None = Wire(
        None, description="Whose answers these are; default google, or emulator when base_url is a loopback address."
    )
    max_rows_per_job: Count = Field(200_000, description="Rows in one job; the service takes 200,000.")
    max_bytes_per_job: Count = Field(1_000_000_000, description="Bytes of one job's JSONL; the service takes 1 GB.")


Backend = Annotated[EmulatorBackend | GeminiBackend | VertexBackend, Field(discriminator="type")]
