"""What google-cloud-storage does, operation by operation. The same tests run on a foreign server: make test-foreign."""

from __future__ import annotations

import base64
import gzip
import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest
from emulated_storage_kit import Connect
from google.api_core import exceptions
from google.cloud import storage
from google.cloud.storage import transfer_manager
from google.cloud.storage.exceptions import InvalidResponse

MIB = 1024 * 1024


@pytest.fixture
def plain(storage_url: str) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=storage_url) as http:
        yield http


@pytest.fixture(scope="session")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that clients upload in a resumable session."""
    path = tmp_path_factory.mktemp("large") / "large.bin"
    path.write_bytes(os.urandom(9 * MIB))
    return path


def names(blobs: object) -> list[str]:
    return [blob.name for blob in blobs]  # type: ignore[attr-defined]


# --- buckets ---


def test_bucket_create(bucket: storage.Bucket, gcs: storage.Client) -> None:
    assert gcs.get_bucket(bucket.name).location == "US"
    assert bucket.name in [b.name for b in gcs.list_buckets()]


def test_bucket_create_twice(bucket: storage.Bucket, gcs: storage.Client) -> None:
    with pytest.raises(exceptions.Conflict):
        gcs.create_bucket(bucket.name)


def test_bucket_missing(gcs: storage.Client) -> None:
    with pytest.raises(exceptions.NotFound):
        gcs.get_bucket("not-there")
    with pytest.raises(exceptions.NotFound):
        gcs.bucket("not-there").blob("x").upload_from_string(b"x")
    with pytest.raises(exceptions.NotFound):
        list(gcs.list_blobs("not-there"))


# --- uploads and downloads ---


def test_upload_and_download(bucket: storage.Bucket) -> None:
    blob = bucket.blob("a/b.txt")
    blob.upload_from_string("hello", content_type="text/plain")
    assert blob.download_as_bytes() == b"hello" and blob.generation
    found = bucket.get_blob("a/b.txt")
    assert (found.size, found.content_type, found.generation) == (5, "text/plain", blob.generation)
    assert found.md5_hash == base64.b64encode(hashlib.md5(b"hello").digest()).decode() and found.crc32c == "mnG7TA=="


def test_upload_of_a_large_file(bucket: storage.Bucket, large: Path) -> None:
    blob = bucket.blob("large")
    blob.upload_from_filename(large)
    assert blob.size == large.stat().st_size and blob.download_as_bytes() == large.read_bytes()


def test_upload_in_chunks(bucket: storage.Bucket, large: Path) -> None:
    blob = bucket.blob("chunks", chunk_size=2 * MIB)
    blob.upload_from_filename(large)
    assert bucket.blob("chunks").download_as_bytes() == large.read_bytes()


def test_upload_of_unknown_size(bucket: storage.Bucket) -> None:
    with bucket.blob("stream").open("wb", chunk_size=256 * 1024) as f:
        for i in range(7):
            f.write(bytes([i]) * 100_000)
    assert bucket.blob("stream").download_as_bytes() == b"".join(bytes([i]) * 100_000 for i in range(7))


def test_reading_line_by_line(bucket: storage.Bucket) -> None:
    lines = [f"line {i}\n" for i in range(5000)]
    bucket.blob("lines").upload_from_string("".join(lines))
    with bucket.blob("lines").open("rt", chunk_size=20_000) as f:
        assert list(f) == lines


def test_empty_object(bucket: storage.Bucket) -> None:
    bucket.blob("empty").upload_from_string(b"")
    assert bucket.blob("empty").download_as_bytes() == b"" and bucket.get_blob("empty").size == 0


def test_odd_names(bucket: storage.Bucket) -> None:
    odd = [
        "a b",
        "a+b",
        "100%",
        "a%2Fb",
        "a#b",
        "a?b=c",
        "ü/日本/😀",
        "x/../y",
        "a//b",
        "/lead",
        "trail/",
        "~'()*!,;=:@&$",
    ]
    odd += ["v1/models/x", "storage/v1/b/x/o/y", "x/compose", "x/rewriteTo/b/y/o/z", '"<&>"']
    for name in odd:
        bucket.blob(name).upload_from_string(name)
    assert [bucket.blob(name).download_as_text() for name in odd] == odd
    assert names(bucket.list_blobs()) == sorted(odd)
    for name in odd:
        bucket.blob(name).delete()
    assert names(bucket.list_blobs()) == []


def test_ranged_download(bucket: storage.Bucket) -> None:
    blob = bucket.blob("r")
    blob.upload_from_string(b"0123456789")
    assert blob.download_as_bytes(start=2, end=4) == b"234" and blob.download_as_bytes(start=7) == b"789"
    assert blob.download_as_bytes(start=5, end=100) == b"56789"


def test_suffix_range(bucket: storage.Bucket, plain: httpx2.Client) -> None:
    bucket.blob("r").upload_from_string(b"0123456789")
    url = f"/download/storage/v1/b/{bucket.name}/o/r?alt=media"
    for asked, answered in (("bytes=-3", b"789"), ("bytes=-100", b"0123456789")):
        answer = plain.get(url, headers={"range": asked})
        assert (answer.status_code, answer.content) == (206, answered)


def test_range_beyond_the_end(bucket: storage.Bucket) -> None:
    bucket.blob("r").upload_from_string(b"0123456789")
    with pytest.raises(exceptions.RequestRangeNotSatisfiable):
        bucket.blob("r").download_as_bytes(start=10)


def test_gzip_is_unpacked_for_who_does_not_take_it(bucket: storage.Bucket, plain: httpx2.Client) -> None:
    blob = bucket.blob("z")
    blob.content_encoding = "gzip"
    blob.upload_from_string(gzip.compress(b"packed" * 100), content_type="text/plain")
    assert blob.download_as_bytes() == b"packed" * 100
    assert gzip.decompress(blob.download_as_bytes(raw_download=True)) == b"packed" * 100
    url = f"/download/storage/v1/b/{bucket.name}/o/z?alt=media"
    answer = plain.get(url, headers={"accept-encoding": "identity"})
    assert answer.content == b"packed" * 100 and "content-encoding" not in answer.headers


def test_wrong_checksum_is_refused(bucket: storage.Bucket) -> None:
    blob = bucket.blob("w")
    blob.md5_hash = base64.b64encode(hashlib.md5(b"other").digest()).decode()
    with pytest.raises(exceptions.BadRequest):
        blob.upload_from_string(b"this", checksum=None)
    assert not bucket.blob("w").exists()


# --- conditions ---


def test_create_if_absent_multipart(bucket: storage.Bucket) -> None:
    bucket.blob("x").upload_from_string(b"1", if_generation_match=0)
    with pytest.raises(exceptions.PreconditionFailed):
        bucket.blob("x").upload_from_string(b"2", if_generation_match=0)
    assert bucket.blob("x").download_as_bytes() == b"1"


def test_create_if_absent_resumable(bucket: storage.Bucket, large: Path) -> None:
    bucket.blob("x", chunk_size=4 * MIB).upload_from_filename(large, if_generation_match=0)
    with pytest.raises(exceptions.PreconditionFailed):
        bucket.blob("x", chunk_size=4 * MIB).upload_from_filename(large, if_generation_match=0)


def test_a_resumable_upload_checks_again_at_its_end(bucket: storage.Bucket) -> None:
    late = bucket.blob("x").open("wb", chunk_size=256 * 1024, if_generation_match=0)
    late.write(b"late" * 200_000)  # most of it is sent now, the rest at the end
    bucket.blob("x").upload_from_string(b"first")
    with pytest.raises(InvalidResponse) as refused:  # what this client makes of the 412 of a stream
        late.close()
    late._buffer.close()  # else it tries again when it is collected
    assert refused.value.response.status_code == 412
    assert bucket.blob("x").download_as_bytes() == b"first"


def test_compare_and_swap(bucket: storage.Bucket) -> None:
    blob = bucket.blob("x")
    blob.upload_from_string(b"1")
    first = blob.generation
    blob.upload_from_string(b"2", if_generation_match=first)
    with pytest.raises(exceptions.PreconditionFailed):
        bucket.blob("x").upload_from_string(b"3", if_generation_match=first)
    assert bucket.blob("x").download_as_bytes() == b"2"


def test_generations_grow(bucket: storage.Bucket) -> None:
    blob, seen = bucket.blob("x"), []
    for i in range(10):
        blob.upload_from_string(str(i))
        seen.append(blob.generation)
    assert seen == sorted(set(seen))


def test_delete_stale(bucket: storage.Bucket) -> None:
    blob = bucket.blob("x")
    blob.upload_from_string(b"1")
    with pytest.raises(exceptions.PreconditionFailed):
        blob.delete(if_generation_match=1)
    blob.delete(if_generation_match=blob.generation)
    assert not blob.exists()


def test_get_stale(bucket: storage.Bucket) -> None:
    blob = bucket.blob("x")
    blob.upload_from_string(b"1")
    with pytest.raises(exceptions.PreconditionFailed):
        blob.reload(if_generation_match=1)
    with pytest.raises(exceptions.PreconditionFailed):
        blob.download_as_bytes(if_generation_match=1)


def test_get_not_modified(bucket: storage.Bucket) -> None:
    blob = bucket.blob("x")
    blob.upload_from_string(b"1")
    with pytest.raises(exceptions.NotModified):
        blob.reload(if_generation_not_match=blob.generation)
    with pytest.raises(exceptions.NotModified):
        blob.download_as_bytes(if_generation_not_match=blob.generation)


def test_an_old_generation_is_gone(bucket: storage.Bucket) -> None:
    blob = bucket.blob("x")
    blob.upload_from_string(b"1")
    first = blob.generation
    blob.upload_from_string(b"2")
    with pytest.raises(exceptions.NotFound):
        bucket.blob("x", generation=first).download_as_bytes()
    assert bucket.blob("x", generation=blob.generation).download_as_bytes() == b"2"


# --- lists ---


def fill(bucket: storage.Bucket, wanted: list[str]) -> None:
    for name in wanted:
        bucket.blob(name).upload_from_string(name)


def test_list_prefix_and_delimiter(bucket: storage.Bucket) -> None:
    fill(bucket, ["a/1", "a/2", "a/b/3", "a/c/4", "a/c/5", "d"])
    found = bucket.list_blobs(prefix="a/", delimiter="/")
    assert names(found) == ["a/1", "a/2"] and found.prefixes == {"a/b/", "a/c/"}


def test_list_order(bucket: storage.Bucket) -> None:
    fill(bucket, ["b", "a", "B", "ä", "a/b", "a0", "a-"])
    assert names(bucket.list_blobs()) == ["B", "a", "a-", "a/b", "a0", "b", "ä"]


def test_list_pages(bucket: storage.Bucket) -> None:
    fill(bucket, [f"p{i:02d}" for i in range(25)])
    assert [len(list(page)) for page in bucket.list_blobs(page_size=10).pages] == [10, 10, 5]
    assert names(bucket.list_blobs(page_size=10)) == [f"p{i:02d}" for i in range(25)]


def test_list_pages_of_prefixes(bucket: storage.Bucket) -> None:
    fill(bucket, [f"f{i}/{j}" for i in range(5) for j in range(3)] + ["f2", "g"])
    found = bucket.list_blobs(delimiter="/", page_size=2)
    pages = [names(page) for page in found.pages]
    assert [name for page in pages for name in page] == ["f2", "g"] and len(pages) == 4
    assert found.prefixes == {f"f{i}/" for i in range(5)}


def test_list_max_results(bucket: storage.Bucket) -> None:
    fill(bucket, [f"p{i:02d}" for i in range(10)])
    assert names(bucket.list_blobs(max_results=7)) == [f"p{i:02d}" for i in range(7)]


def test_list_offsets(bucket: storage.Bucket) -> None:
    fill(bucket, list("abcdef"))
    assert names(bucket.list_blobs(start_offset="b", end_offset="e")) == ["b", "c", "d"]


def test_list_glob(bucket: storage.Bucket) -> None:
    fill(bucket, ["a/1.csv", "a/2.csv", "a/b/3.csv", "a/4.txt", "b.csv"])
    assert names(bucket.list_blobs(match_glob="a/*.csv")) == ["a/1.csv", "a/2.csv"]
    assert names(bucket.list_blobs(match_glob="**.csv")) == ["a/1.csv", "a/2.csv", "a/b/3.csv", "b.csv"]
    assert names(bucket.list_blobs(match_glob="a/[13].{csv,txt}")) == ["a/1.csv"]
    assert names(bucket.list_blobs(match_glob="?.csv")) == ["b.csv"]


# --- changes ---


def test_compose(bucket: storage.Bucket) -> None:
    fill(bucket, ["1", "2", "3"])
    made = bucket.blob("all")
    made.content_type = "text/plain"
    made.compose([bucket.blob(n) for n in "123"])
    assert made.download_as_bytes() == b"123" and made.component_count == 3
    found = bucket.get_blob("all")
    assert found.md5_hash is None and found.crc32c and found.content_type == "text/plain"


def test_compose_if_absent(bucket: storage.Bucket) -> None:
    fill(bucket, ["1", "2"])
    sources = [bucket.blob("1"), bucket.blob("2")]
    bucket.blob("all").compose(sources, if_generation_match=0)
    with pytest.raises(exceptions.PreconditionFailed):
        bucket.blob("all").compose(sources, if_generation_match=0)
    with pytest.raises(exceptions.PreconditionFailed):
        bucket.blob("other").compose(sources, if_source_generation_match=[1, None])


def test_compose_too_many(bucket: storage.Bucket) -> None:
    fill(bucket, ["1"])
    bucket.blob("all").compose([bucket.blob("1")] * 32)
    with pytest.raises(exceptions.BadRequest):
        bucket.blob("all").compose([bucket.blob("1")] * 33)


def test_metadata_and_metageneration(bucket: storage.Bucket) -> None:
    blob = bucket.blob("m")
    blob.metadata, blob.cache_control = {"who": "me", "what": "it"}, "no-cache"
    blob.upload_from_string(b"1")
    assert bucket.get_blob("m").metadata == {"who": "me", "what": "it"} and blob.metageneration == 1
    generation = blob.generation
    blob.metadata = {"who": "you", "what": None}
    blob.patch()
    found = bucket.get_blob("m")
    assert (found.metadata, found.metageneration, found.generation) == ({"who": "you"}, 2, generation)
    assert found.cache_control == "no-cache" and found.download_as_bytes() == b"1"


def test_patch_stale(bucket: storage.Bucket) -> None:
    blob = bucket.blob("m")
    blob.upload_from_string(b"1")
    blob.metadata = {"a": "b"}
    with pytest.raises(exceptions.PreconditionFailed):
        blob.patch(if_metageneration_match=7)
    blob.patch(if_metageneration_match=1)


def test_copy_rewrite_and_rename(bucket: storage.Bucket) -> None:
    blob = bucket.blob("one")
    blob.metadata = {"kept": "yes"}
    blob.upload_from_string(b"1", content_type="text/plain")
    copied = bucket.copy_blob(blob, bucket, "two")
    assert copied.download_as_bytes() == b"1" and bucket.get_blob("two").metadata == {"kept": "yes"}
    token, done, total = bucket.blob("three").rewrite(blob)
    assert (token, done, total) == (None, 1, 1) and bucket.get_blob("three").content_type == "text/plain"
    bucket.rename_blob(blob, "four")
    assert names(bucket.list_blobs()) == ["four", "three", "two"]


def test_copy_if_absent(bucket: storage.Bucket) -> None:
    fill(bucket, ["1", "2"])
    with pytest.raises(exceptions.PreconditionFailed):
        bucket.copy_blob(bucket.blob("1"), bucket, "2", if_generation_match=0)
    with pytest.raises(exceptions.PreconditionFailed):
        bucket.copy_blob(bucket.blob("1"), bucket, "3", if_source_generation_match=1)


def test_move(bucket: storage.Bucket) -> None:
    fill(bucket, ["a", "c"])
    moved = bucket.move_blob(bucket.blob("a"), "b")
    assert moved.name == "b" and names(bucket.list_blobs()) == ["b", "c"]
    with pytest.raises(exceptions.PreconditionFailed):
        bucket.move_blob(bucket.blob("b"), "c", if_generation_match=0)
    assert [bucket.blob(n).download_as_bytes() for n in "bc"] == [b"a", b"c"]


def test_delete_and_exists(bucket: storage.Bucket) -> None:
    fill(bucket, ["x"])
    assert bucket.blob("x").exists()
    bucket.blob("x").delete()
    assert not bucket.blob("x").exists()
    with pytest.raises(exceptions.NotFound):
        bucket.blob("x").delete()


def test_batch_delete(bucket: storage.Bucket, gcs: storage.Client) -> None:
    fill(bucket, ["a/1", "a/ü 2", "b"])
    with gcs.batch():
        bucket.blob("a/1").delete()
        bucket.blob("a/ü 2").delete()
    assert names(bucket.list_blobs()) == ["b"]
    with pytest.raises(exceptions.NotFound), gcs.batch():
        bucket.blob("not there").delete()


# --- many at once ---


def test_download_in_parallel_chunks(bucket: storage.Bucket, large: Path, tmp_path: Path) -> None:
    bucket.blob("large").upload_from_filename(large)
    target, threads = tmp_path / "got", transfer_manager.THREAD
    transfer_manager.download_chunks_concurrently(
        bucket.blob("large"), target, chunk_size=2 * MIB, worker_type=threads, max_workers=4
    )
    assert target.read_bytes() == large.read_bytes()


def test_upload_in_parallel_chunks(bucket: storage.Bucket, large: Path) -> None:
    blob = bucket.blob("large")
    blob.metadata = {"who": "me"}
    transfer_manager.upload_chunks_concurrently(
        large, blob, chunk_size=5 * MIB, worker_type=transfer_manager.THREAD, max_workers=4
    )
    assert bucket.blob("large").download_as_bytes() == large.read_bytes()
    assert bucket.get_blob("large").metadata == {"who": "me"}


def at_once(count: int, do: Callable[[int], object]) -> list[object]:
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(do, range(count)))


def test_race_to_create(bucket: storage.Bucket, connect_storage: Connect) -> None:
    buckets = [connect_storage().bucket(bucket.name) for _ in range(16)]

    for turn in range(4):
        ready = threading.Barrier(16)

        def create(me: int) -> bool:
            ready.wait()  # noqa: B023  (all of a turn are done before the next)
            try:
                buckets[me].blob(f"lock-{turn}").upload_from_string(str(me), if_generation_match=0)  # noqa: B023
            except exceptions.PreconditionFailed:
                return False
            return True

        won = [me for me, found in enumerate(at_once(16, create)) if found]
        assert [bucket.blob(f"lock-{turn}").download_as_text()] == [str(me) for me in won]


def test_race_to_count(bucket: storage.Bucket, connect_storage: Connect) -> None:
    bucket.blob("count").upload_from_string("0")
    buckets = [connect_storage().bucket(bucket.name) for _ in range(8)]

    def count(me: int) -> None:
        left = 3
        while left:
            try:
                blob = buckets[me].get_blob("count")
                text = str(int(blob.download_as_text()) + 1)
                blob.upload_from_string(text, if_generation_match=blob.generation)
                left -= 1
            except (exceptions.PreconditionFailed, exceptions.NotFound):  # not found: the generation that it looked at
                continue

    at_once(8, count)
    assert bucket.blob("count").download_as_text() == "24"


def test_race_of_readers(bucket: storage.Bucket, connect_storage: Connect) -> None:
    bucket.blob("whole").upload_from_string(b"0" * 300_000)
    buckets = [connect_storage().bucket(bucket.name) for _ in range(5)]
    stop = threading.Event()

    def work(me: int) -> int:
        if me == 0:
            for i in range(20):
                buckets[0].blob("whole").upload_from_string(str(i % 10) * 300_000)
            stop.set()
            return 0
        torn = 0
        while not stop.is_set():
            data = buckets[me].blob("whole").download_as_bytes()
            torn += len(data) != 300_000 or len(set(data)) != 1
        return torn

    assert at_once(5, work) == [0] * 5


def test_many_small_objects(bucket: storage.Bucket) -> None:
    for i in range(100):
        bucket.blob(f"small/{i:03d}").upload_from_string(b"x" * 500)
    assert len(names(bucket.list_blobs(prefix="small/"))) == 100
