"""Other clients than Google's on the emulator's Cloud Storage. Run by `make test-foreign`, which installs them."""

from __future__ import annotations

import asyncio
import json
import os
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

os.environ["GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"] = "false"  # read at import; else it asks the endpoint by gRPC over TLS

import deltalake
import duckdb
import gcsfs
import httpx2
import obstore
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.fs
import pyarrow.parquet as pq
import pytest
from obstore.exceptions import AlreadyExistsError, NotFoundError, PreconditionError
from obstore.store import GCSStore

MIB = 1024 * 1024
pytestmark = pytest.mark.filterwarnings("default")  # what these libraries warn of is theirs
TABLE = pa.table({"id": list(range(1000)), "text": [f"row {i}" for i in range(1000)]})


@pytest.fixture
def bucket_name(storage_url: str) -> str:
    name = f"b-{uuid.uuid4().hex[:20]}"
    httpx2.post(f"{storage_url}/storage/v1/b?project=acme", json={"name": name}).raise_for_status()
    return name


# --- gcsfs ---


@pytest.fixture
def fs(storage_url: str) -> Iterator[gcsfs.GCSFileSystem]:
    found = gcsfs.GCSFileSystem(
        endpoint_url=storage_url, token="anon", project="acme", skip_instance_cache=True, use_listings_cache=False
    )
    yield found
    if found.session is not None:
        gcsfs.GCSFileSystem.close_session(found.loop, found.session)


def test_gcsfs_pipe_and_cat(fs: gcsfs.GCSFileSystem, bucket_name: str) -> None:
    fs.pipe(f"{bucket_name}/a b/ü.bin", b"0123456789")
    assert fs.cat(f"{bucket_name}/a b/ü.bin") == b"0123456789"
    assert fs.cat_file(f"{bucket_name}/a b/ü.bin", start=2, end=5) == b"234"


def test_gcsfs_large_files(fs: gcsfs.GCSFileSystem, bucket_name: str) -> None:
    data = os.urandom(12 * MIB)
    with fs.open(f"{bucket_name}/large", "wb", block_size=5 * MIB) as f:
        f.write(data)
    with fs.open(f"{bucket_name}/large", "rb") as f:
        f.seek(7 * MIB)
        assert f.read(100) == data[7 * MIB : 7 * MIB + 100]
        f.seek(0)
        assert f.read() == data


def test_gcsfs_looks_and_removes(fs: gcsfs.GCSFileSystem, bucket_name: str) -> None:
    for name in ("x/1", "x/2", "x/y/3", "z"):
        fs.pipe(f"{bucket_name}/{name}", b"12345")
    assert sorted(fs.ls(f"{bucket_name}/x", detail=False)) == [f"{bucket_name}/x/{n}" for n in ("1", "2", "y")]
    assert fs.find(f"{bucket_name}/x") == [f"{bucket_name}/x/{n}" for n in ("1", "2", "y/3")]
    assert fs.glob(f"{bucket_name}/x/*") == [f"{bucket_name}/x/{n}" for n in ("1", "2", "y")]
    assert fs.du(f"{bucket_name}/x") == 15
    fs.rm(f"{bucket_name}/x", recursive=True)
    assert fs.find(bucket_name) == [f"{bucket_name}/z"]


def test_gcsfs_exclusive_create(fs: gcsfs.GCSFileSystem, bucket_name: str) -> None:
    with fs.open(f"{bucket_name}/once", "xb") as f:
        f.write(b"1")
    with pytest.raises(FileExistsError), fs.open(f"{bucket_name}/once", "xb") as f:
        f.write(b"2")
    assert fs.cat(f"{bucket_name}/once") == b"1"


def test_gcsfs_parquet_dataset(fs: gcsfs.GCSFileSystem, bucket_name: str) -> None:
    ds.write_dataset(TABLE, f"{bucket_name}/data", format="parquet", filesystem=fs, max_rows_per_file=500,
                     max_rows_per_group=500)  # fmt: skip
    assert ds.dataset(f"{bucket_name}/data", filesystem=fs).to_table().sort_by("id") == TABLE


def test_duckdb_through_gcsfs(fs: gcsfs.GCSFileSystem, bucket_name: str) -> None:
    with fs.open(f"{bucket_name}/t.parquet", "wb") as f:
        pq.write_table(TABLE, f)
    with duckdb.connect() as db:
        db.register_filesystem(fs)
        assert db.execute(f"SELECT sum(id) FROM read_parquet('gs://{bucket_name}/*.parquet')").fetchall() == [(499500,)]
        db.execute(f"COPY (SELECT 1 AS one) TO 'gs://{bucket_name}/out.json'")
        assert db.execute(f"SELECT one FROM read_json('gs://{bucket_name}/out.json')").fetchall() == [(1,)]


# --- pyarrow's own client ---


def test_pyarrow(storage_url: str, bucket_name: str) -> None:
    host = storage_url.removeprefix("http://")
    fs = pyarrow.fs.GcsFileSystem(anonymous=True, scheme="http", endpoint_override=host)
    pq.write_table(TABLE, f"{bucket_name}/d/t.parquet", filesystem=fs)
    assert pq.read_table(f"{bucket_name}/d/t.parquet", filesystem=fs) == TABLE
    with fs.open_output_stream(f"{bucket_name}/d/large") as f:
        for i in range(10):
            f.write(bytes([i]) * MIB)
    with fs.open_input_file(f"{bucket_name}/d/large") as f:
        f.seek(9 * MIB)
        assert f.read() == b"\x09" * MIB
    found = fs.get_file_info(pyarrow.fs.FileSelector(bucket_name, recursive=True))
    assert {info.path for info in found} >= {f"{bucket_name}/d/t.parquet", f"{bucket_name}/d/large"}
    fs.move(f"{bucket_name}/d/large", f"{bucket_name}/d/moved")
    fs.delete_file(f"{bucket_name}/d/moved")
    assert fs.get_file_info(f"{bucket_name}/d/moved").type == pyarrow.fs.FileType.NotFound


# --- object_store: obstore and deltalake ---


@pytest.fixture
def options(storage_url: str) -> dict[str, Any]:
    key = {
        "gcs_base_url": storage_url,
        "disable_oauth": True,
        "client_email": "",
        "private_key": "",
        "private_key_id": "",
    }
    return {"google_service_account_key": json.dumps(key)}


@pytest.fixture
def store(bucket_name: str, options: dict[str, Any]) -> GCSStore:
    return GCSStore(bucket_name, service_account_key=options["google_service_account_key"],
                    client_options={"allow_http": True})  # fmt: skip


def test_obstore_put_and_get(store: GCSStore) -> None:
    made = obstore.put(store, "a b/ü.bin", b"hello", attributes={"Content-Type": "text/plain"}, use_multipart=False)
    assert made["version"] and made["e_tag"]
    got = obstore.get(store, "a b/ü.bin")
    assert bytes(got.bytes()) == b"hello" and got.attributes["Content-Type"] == "text/plain"


def test_obstore_head(store: GCSStore) -> None:
    made = obstore.put(store, "x", b"hello", use_multipart=False)
    found = obstore.head(store, "x")
    assert (found["size"], found["version"], found["e_tag"]) == (5, made["version"], made["e_tag"])
    with pytest.raises((NotFoundError, FileNotFoundError)):
        obstore.head(store, "y")


def test_obstore_ranges(store: GCSStore) -> None:
    obstore.put(store, "x", b"0123456789", use_multipart=False)
    assert bytes(obstore.get_range(store, "x", start=2, end=5)) == b"234"
    assert [bytes(b) for b in obstore.get_ranges(store, "x", starts=[0, 8], ends=[1, 10])] == [b"0", b"89"]
    assert bytes(obstore.get(store, "x", options={"range": {"suffix": 3}}).bytes()) == b"789"


def test_obstore_list(store: GCSStore) -> None:
    for name in ("a/1", "a/b/2", "c"):
        obstore.put(store, name, b"x", use_multipart=False)
    assert [found["path"] for page in obstore.list(store) for found in page] == ["a/1", "a/b/2", "c"]
    found = obstore.list_with_delimiter(store, "a")
    assert [o["path"] for o in found["objects"]] == ["a/1"] and list(found["common_prefixes"]) == ["a/b"]


def test_obstore_create(store: GCSStore) -> None:
    obstore.put(store, "x", b"1", mode="create", use_multipart=False)
    with pytest.raises((AlreadyExistsError, FileExistsError)):
        obstore.put(store, "x", b"2", mode="create", use_multipart=False)


def test_obstore_update(store: GCSStore) -> None:
    first = obstore.put(store, "x", b"1", use_multipart=False)
    obstore.put(store, "x", b"2", mode=first, use_multipart=False)
    with pytest.raises(PreconditionError):
        obstore.put(store, "x", b"3", mode=first, use_multipart=False)
    assert bytes(obstore.get(store, "x").bytes()) == b"2"


def test_obstore_multipart(store: GCSStore) -> None:
    data = os.urandom(20 * MIB)
    obstore.put(store, "large", data, use_multipart=True, chunk_size=5 * MIB)
    assert bytes(obstore.get(store, "large").bytes()) == data


def test_obstore_copy_and_rename(store: GCSStore) -> None:
    obstore.put(store, "x", b"1", use_multipart=False)
    obstore.copy(store, "x", "y")
    obstore.rename(store, "y", "z")
    with pytest.raises((AlreadyExistsError, FileExistsError)):
        obstore.copy(store, "x", "z", overwrite=False)
    assert [found["path"] for page in obstore.list(store) for found in page] == ["x", "z"]


def test_obstore_bulk_delete(store: GCSStore) -> None:
    names = [f"d/{i} ü" for i in range(150)]
    for name in names:
        obstore.put(store, name, b"x", use_multipart=False)
    obstore.delete(store, names)
    assert [found for page in obstore.list(store) for found in page] == []


def test_obstore_in_asyncio(store: GCSStore) -> None:
    async def many() -> list[bytes]:
        await asyncio.gather(*(obstore.put_async(store, f"n{i}", b"x" * i, use_multipart=False) for i in range(50)))
        found = await asyncio.gather(*(obstore.get_async(store, f"n{i}") for i in range(50)))
        return [bytes(await one.bytes_async()) for one in found]

    assert asyncio.run(many()) == [b"x" * i for i in range(50)]


def at(options: dict[str, Any]) -> dict[str, str]:
    return {**options, "allow_http": "true"}


def test_deltalake_write_and_read(bucket_name: str, options: dict[str, Any]) -> None:
    deltalake.write_deltalake(f"gs://{bucket_name}/t", TABLE, storage_options=at(options))
    found = deltalake.DeltaTable(f"gs://{bucket_name}/t", storage_options=at(options))
    assert found.version() == 0 and pa.table(found.to_pyarrow_table()).num_rows == 1000


def test_deltalake_appends_at_once(bucket_name: str, options: dict[str, Any]) -> None:
    uri = f"gs://{bucket_name}/t"
    deltalake.write_deltalake(uri, TABLE, storage_options=at(options))

    def append(_: int) -> None:
        deltalake.write_deltalake(uri, TABLE, mode="append", storage_options=at(options))

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(append, range(6)))
    found = deltalake.DeltaTable(uri, storage_options=at(options))
    assert found.version() == 6 and found.to_pyarrow_table().num_rows == 7000
