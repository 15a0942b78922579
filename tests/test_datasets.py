"""Sets: downloading, preparing, reading and keeping few images, and a short text, from a server in this process."""

import dataclasses
import functools
import gzip
import hashlib
import io
import os
import socket
import struct
import sys
import tarfile
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import sklearn.datasets
import tensorflow_datasets as tfds

from wrnn_jax import datasets
from wrnn_jax.datasets import archives, cache, download, prepare, sets, stored
from wrnn_jax.datasets.sets import Archive
from wrnn_jax.validation import InvalidValue

COUNTS = {"train": 12, "test": 6}


# Fakes: sets of few images in the published formats, which are written here by other means than they are read.


def idx(array):
    """Four bytes that say "unsigned bytes, so many axes", each axis, the bytes; in C order; gzipped."""
    head = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    return gzip.compress(head + array.astype(np.uint8).tobytes())


def cifar_records(images, labels):
    """A byte for the label, then a plane for each colour, row by row."""
    return b"".join(
        bytes([label]) + b"".join(image[:, :, colour].tobytes() for colour in range(3))
        for image, label in zip(images, labels, strict=True)
    )


def cifar_archive(splits):
    (train_images, train_labels), (test_images, test_labels) = splits["train"], splits["test"]
    members = {
        f"data_batch_{batch + 1}.bin": cifar_records(part_images, part_labels)
        for batch, (part_images, part_labels) in enumerate(
            zip(np.array_split(train_images, 5), np.array_split(train_labels, 5), strict=True)
        )
    }
    members["test_batch.bin"] = cifar_records(test_images, test_labels)
    members["batches.meta.txt"] = b"airplane\n"
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return file.getvalue()


def random_splits(image_shape):
    rng = np.random.default_rng(0)
    return {
        split: (rng.integers(0, 256, (count, *image_shape), np.uint8), rng.integers(0, 10, count).astype(np.uint8))
        for split, count in COUNTS.items()
    }


def published(name, splits):
    """The archives, by file name, in which ``splits`` would be published."""
    if name == "cifar10":
        return {"cifar-10-binary.tar.gz": cifar_archive(splits)}
    return {
        f"{prefix}-{kind}-idx{axes}-ubyte.gz": idx(array.squeeze())
        for split, prefix in (("train", "train"), ("test", "t10k"))
        for kind, axes, array in zip(("images", "labels"), (3, 1), splits[split], strict=True)
    }


class Server:
    """Serves the files in ``folder`` on the loopback."""

    def __init__(self, folder):
        class Handler(SimpleHTTPRequestHandler):
            def log_message(self, *_):
                pass

        self.folder = folder
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=folder))
        self.url = f"http://127.0.0.1:{self.http.server_port}/"
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()

    def publish(self, name, splits):
        """The image set whose archives are from now on to be had here."""
        image_set, files = sets.STORED[name], published(name, splits)
        for filename, content in files.items():
            (self.folder / filename).write_bytes(content)
        own = [
            Archive(self.url + old.filename, len(content), hashlib.sha256(content).hexdigest())
            for old in image_set.archives
            for content in (files[old.filename],)
        ]
        return dataclasses.replace(image_set, counts=COUNTS, archives=tuple(own))

    def stop(self):
        self.http.shutdown()
        self.http.server_close()


@pytest.fixture(autouse=True)
def surroundings(monkeypatch, tmp_path):
    """A cache, a home and default folders of the test's own; no proxy before the loopback."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture
def server(tmp_path):
    (tmp_path / "served").mkdir()
    server = Server(tmp_path / "served")
    yield server
    server.stop()


@pytest.fixture
def splits():
    return random_splits((28, 28, 1))


@pytest.fixture
def mnist(server, splits):
    return server.publish("mnist", splits)


@pytest.fixture
def root(tmp_path):
    return tmp_path / "data"


@pytest.fixture
def prepared(mnist, root):
    """The folder with the records of a small MNIST."""
    prepare.prepare(mnist, root)
    return root / "mnist" / mnist.version


def files_below(folder):
    return {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}


def as_pairs(images, labels):
    """A split without its order."""
    return sorted((image.tobytes(), int(label)) for image, label in zip(images, labels, strict=True))


def split_of(images, split):
    return (images.train_images, images.train_labels) if split == "train" else (images.test_images, images.test_labels)


def assert_same(one, other):
    for left, right in zip(one, other, strict=True):
        np.testing.assert_array_equal(left, right)


# The published formats.


def test_idx_is_read_in_the_shape_that_it_states(tmp_path):
    (tmp_path / "file.gz").write_bytes(gzip.compress(b"\0\0\x08\x02" + b"\0\0\0\x02" + b"\0\0\0\x03" + bytes(range(6))))
    np.testing.assert_array_equal(archives.read_idx(tmp_path / "file.gz"), [[0, 1, 2], [3, 4, 5]])


def test_cifar_records_hold_a_label_and_three_planes():
    red, green, blue = (np.full(32 * 32, value, np.uint8) for value in (1, 2, 3))
    red[1], green[32], blue[-1] = 11, 22, 33  # row 0, column 1; row 1, column 0; the last pixel
    images, labels = archives.read_cifar10(bytes([7, *red, *green, *blue]) + bytes([9]) + bytes(3072))
    assert images.shape == (2, 32, 32, 3)
    assert labels.tolist() == [7, 9]
    assert images[0, 5, 5].tolist() == [1, 2, 3]
    assert (images[0, 0, 1, 0], images[0, 1, 0, 1], images[0, 31, 31, 2]) == (11, 22, 33)


# The whole path, from archives on the network to arrays.


@pytest.mark.parametrize("name", sets.STORED)
def test_what_is_published_is_what_is_loaded(name, server, root, monkeypatch, capfd):
    splits = random_splits(sets.STORED[name].image_shape)
    monkeypatch.setitem(sets.STORED, name, server.publish(name, splits))
    images = datasets.load(name, root)
    for split, count in COUNTS.items():
        arrays = split_of(images, split)
        assert [array.dtype for array in arrays] == [np.uint8, np.int32]
        assert arrays[0].shape == (count, *sets.STORED[name].image_shape)
        assert as_pairs(*arrays) == as_pairs(*splits[split])
    assert (images.classes, images.peak, images.note) == (10, 255, "")
    assert capfd.readouterr() == ("", ""), "no terminal: no bars, no developers' warnings"


@pytest.mark.parametrize("name", sets.STORED)
def test_plain_tensorflow_datasets_reads_what_is_prepared(name, server, root):
    image_set = server.publish(name, random_splits(sets.STORED[name].image_shape))
    images = stored.load(image_set, root)
    for split in COUNTS:
        source = tfds.data_source(name, split=split, data_dir=root, download=False)
        assert_same((np.stack([example["image"] for example in source]),), split_of(images, split)[:1])
        assert [example["label"] for example in source] == split_of(images, split)[1].tolist()
    assert {path.parts[0] for path in files_below(root)} == {name}, "only the set is left, no archive"
    assert "tensorflow" not in sys.modules


def test_a_prepared_set_needs_no_network(prepared, mnist, root, server):
    server.stop()
    assert stored.load(mnist, root).train_images.shape == (12, 28, 28, 1)


@pytest.mark.parametrize("name", [*sets.STORED, "tiny_shakespeare"])
def test_sources_are_those_of_tensorflow_datasets(name):
    """Addresses, sizes, checksums and the version, from the package's own tables."""
    builder = tfds.builder_cls(name)
    theirs = {(url, info.size, info.checksum) for url, info in builder.url_infos.items()}
    stored_set = {**sets.STORED, "tiny_shakespeare": sets.TINY_SHAKESPEARE}[name]
    ours = {(archive.url, archive.size, archive.sha256) for archive in stored_set.archives}
    assert ours == theirs
    assert str(builder.VERSION) == stored_set.version


def test_the_folder_is_the_one_given_else_the_environments_else_the_homes(prepared, mnist, root, monkeypatch, tmp_path):
    refused = dataclasses.replace(mnist, archives=())  # with nothing to prepare from, only what is there can be read
    monkeypatch.setenv("TFDS_DATA_DIR", str(root))
    assert_same(stored.load(refused), stored.load(refused, root))
    (tmp_path / "home").mkdir()
    root.rename(tmp_path / "home" / "tensorflow_datasets")
    monkeypatch.delenv("TFDS_DATA_DIR")
    assert_same(stored.load(refused), stored.load(refused, "~/tensorflow_datasets"))


# A text.


@pytest.fixture
def shakespeare(server):
    """A short text in its place, of two lines and of characters of one to four bytes."""
    content = "First Citizen:\nSpeak — «ü𝄞»!\r\n".encode() * 20
    (archive,) = sets.TINY_SHAKESPEARE.archives
    (server.folder / archive.filename).write_bytes(content)
    published = Archive(server.url + archive.filename, len(content), hashlib.sha256(content).hexdigest())
    return dataclasses.replace(sets.TINY_SHAKESPEARE, archives=(published,))


def test_a_text_that_is_published_is_what_is_loaded_once_it_is_prepared(shakespeare, server, root):
    content = (server.folder / "input.txt").read_bytes()
    assert stored.load_text(shakespeare, root) == content
    server.stop()
    assert stored.load_text(shakespeare, root) == content
    assert {path.parts[0] for path in files_below(root)} == {"tiny_shakespeare"}
    parts = [
        tfds.data_source("tiny_shakespeare", split=split, data_dir=root, download=False)[0]["text"].decode()
        for split in ("train", "validation", "test")
    ]
    assert "".join(parts) == content.decode()
    size = len(content.decode())
    assert [len(part) for part in parts] == [size * 9 // 10, size // 20, size // 20], "620 characters: 558, 31, 31"
    assert "tensorflow" not in sys.modules


def test_a_text_that_is_damaged_or_cannot_be_had_is_one_line(shakespeare, server, root, monkeypatch):
    stored.load_text(shakespeare, root)
    other = dataclasses.replace(shakespeare, archives=(dataclasses.replace(shakespeare.archives[0], sha256="0" * 64),))
    with pytest.raises(InvalidValue, match=r"damage .another text than was published.: remove that folder"):
        stored.load_text(other, root)
    for file in (root / "tiny_shakespeare" / "1.0.0").glob("*test.array_record*"):
        file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(InvalidValue, match=r"the whole of tiny_shakespeare 1.0.0"):
        stored.load_text(shakespeare, root)
    server.stop()
    monkeypatch.setattr(datasets.texts, "TINY_SHAKESPEARE", shakespeare)
    with pytest.raises(InvalidValue, match=r"Connection refused.*try --text with a file of your own") as error:
        datasets.load_text(data_dir=root / "elsewhere")
    assert error.value.field == "data_dir"
    assert not (root / "elsewhere").exists()


def test_a_file_is_a_text_as_it_is_or_one_line_says_why_not(tmp_path):
    content = "\ufeffä\r\n\0\n".encode()
    (tmp_path / "text").write_bytes(content)
    assert datasets.load_text(tmp_path / "text") == content
    (tmp_path / "empty").touch()
    (tmp_path / "latin").write_bytes("täxt".encode("latin-1"))
    os.mkfifo(tmp_path / "pipe")
    said = {
        "none": "a file that can be read (No such file or directory)",
        "": "a file, which a folder is not",
        "text/below": "a file that can be read (Not a directory)",
        "empty": "a file with a text in it: this is empty",
        "latin": "UTF-8, which it is not from byte 1 on",
        "pipe": "a regular file: it is read more than once",
        "\0": "a file that can be read (",
    }
    for name, why in said.items():
        with pytest.raises(InvalidValue) as error:
            datasets.load_text(tmp_path / name)
        assert error.value.field == "text"
        assert error.value.allowed.startswith(why)


# Downloads that fail.


def served_otherwise(change):
    """A test's case: the first archive as the server has it is changed."""

    def damage(server, image_set):
        path = server.folder / image_set.archives[0].filename
        path.write_bytes(change(path.read_bytes()))

    return damage


FAILURES = {
    "no network": (lambda server, image_set: server.stop(), "Connection refused"),
    "no such file": (lambda server, image_set: (server.folder / image_set.archives[2].filename).unlink(), "404"),
    "other bytes": (served_otherwise(lambda content: content[:-1] + b"?"), "SHA-256"),
    "too short": (served_otherwise(lambda content: content[:-1]), "bytes instead of"),
    "too long": (served_otherwise(lambda content: content + bytes(download.BLOCK)), "with more than"),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_a_failed_download_is_one_line_and_leaves_nothing(failure, server, mnist, tmp_path):
    fail, said = FAILURES[failure]
    fail(server, mnist)
    with pytest.raises(InvalidValue) as error:
        stored.load(mnist, tmp_path / "new" / "folder")
    assert error.value.field == "data_dir"
    for part in (said, str(tmp_path / "new" / "folder"), "mnist 3.0.1", "TFDS_DATA_DIR", "--dataset digits"):
        assert part in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "new").exists()


def test_a_server_that_says_nothing_is_given_up(mnist, root, monkeypatch):
    monkeypatch.setattr(download, "TIMEOUT", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        archive = dataclasses.replace(mnist.archives[0], url=f"http://127.0.0.1:{silent.getsockname()[1]}/file")
        with pytest.raises(InvalidValue, match="timed out"):
            stored.load(dataclasses.replace(mnist, archives=(archive,)), root)
    assert not root.exists()


def test_a_failed_download_leaves_what_was_there(server, mnist, root):
    (root / "cifar10" / "3.0.2").mkdir(parents=True)
    (root / "cifar10" / "3.0.2" / "dataset_info.json").write_text("{}")
    server.stop()
    with pytest.raises(InvalidValue, match=r"there is cifar10 3\.0\.2 in it"):
        stored.load(mnist, root)
    assert files_below(root) == {Path("cifar10/3.0.2/dataset_info.json")}
    assert [path.name for path in root.iterdir()] == ["cifar10"]


def test_after_a_failure_the_next_attempt_succeeds(server, mnist, root, splits):
    archive = server.folder / mnist.archives[-1].filename
    content = archive.read_bytes()
    archive.write_bytes(bytes(len(content)))
    with pytest.raises(InvalidValue, match="SHA-256"):
        stored.load(mnist, root)
    archive.write_bytes(content)
    assert as_pairs(*split_of(stored.load(mnist, root), "train")) == as_pairs(*splits["train"])


def test_nothing_bears_the_files_name_before_it_is_verified(server, mnist, tmp_path):
    wrong = dataclasses.replace(mnist.archives[0], sha256="0" * 64)
    with pytest.raises(download.DownloadError):
        download.download(wrong, tmp_path)
    assert not (tmp_path / wrong.filename).exists()
    path = download.download(mnist.archives[0], tmp_path)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == mnist.archives[0].sha256


def test_of_two_that_prepare_at_once_the_first_ones_work_stays(mnist, root, splits):
    inodes = []

    def unpack_while_another_finishes(paths):
        prepare.prepare(mnist, root)
        inodes.extend(sorted(path.stat().st_ino for path in (root / "mnist" / "3.0.1").iterdir()))
        return mnist.unpack(paths)

    prepare.prepare(dataclasses.replace(mnist, unpack=unpack_while_another_finishes), root)
    assert sorted(path.stat().st_ino for path in (root / "mnist" / "3.0.1").iterdir()) == inodes
    assert [path.name for path in root.iterdir()] == ["mnist"]
    assert as_pairs(*split_of(stored.load(mnist, root), "test")) == as_pairs(*splits["test"])


def test_a_failure_while_writing_leaves_nothing(mnist, root):
    def unpack(paths):
        raise OSError(28, "No space left on device")

    with pytest.raises(InvalidValue, match="No space left"):
        stored.load(dataclasses.replace(mnist, unpack=unpack), root)
    assert not root.exists()


# Prepared folders that are not as they should be.


@pytest.fixture
def load_with(prepared, mnist, root, monkeypatch):
    """``load_with(content)``: what is read, or the refusal, with this content in the file of training records."""
    monkeypatch.setattr(cache, "read", lambda *_: None)
    file = next(prepared.glob("*-train.array_record*"))

    def load(content=None):
        if content is not None:
            file.write_bytes(content)
        try:
            return stored.load(mnist, root)
        except InvalidValue as refusal:
            return refusal

    load.whole = file.read_bytes()
    return load


@pytest.mark.parametrize("length", [0, 1, 1000, 65535, 65536, 65537, -65536, -1])
def test_a_record_file_without_its_end_is_refused(length, load_with, prepared):
    """The reader itself takes one of just 65,536 bytes for a file of empty records."""
    refusal = load_with(load_with.whole[:length])
    assert isinstance(refusal, InvalidValue)
    assert refusal.field == "data_dir"
    assert str(prepared) in str(refusal)
    assert "\n" not in str(refusal)


def test_with_a_flipped_bit_a_record_file_is_refused_or_read_as_it_was(load_with):
    """It has checksums of all but the padding."""
    expected, content = load_with(), np.frombuffer(load_with.whole, np.uint8)
    used = np.flatnonzero(content)
    rng = np.random.default_rng(0)
    refused = 0
    for place in rng.choice(used, 60, replace=False):
        flipped = content.copy()
        flipped[place] ^= 1 << rng.integers(8)
        outcome = load_with(flipped.tobytes())
        if isinstance(outcome, InvalidValue):
            refused += 1
        else:
            assert_same(outcome, expected)
    assert refused > 30, "nearly all of the bytes that are not zero are records"


def test_record_files_that_hold_too_few_records_are_refused(prepared, mnist, root):
    test, train = (next(prepared.glob(f"*-{split}.array_record*")) for split in ("test", "train"))
    train.write_bytes(test.read_bytes())
    with pytest.raises(InvalidValue, match="damage"):
        stored.load(mnist, root)


@pytest.mark.parametrize("missing", ["dataset_info.json", "features.json", "mnist-train.array_record-00000-of-00001"])
@pytest.mark.parametrize("emptied", [False, True], ids=["missing", "emptied"])
def test_files_that_are_gone_or_empty_are_said(missing, emptied, prepared, mnist, root):
    (prepared / missing).unlink()
    if emptied:
        (prepared / missing).touch()
    with pytest.raises(InvalidValue, match="remove that folder") as error:
        stored.load(mnist, root)
    assert "\n" not in str(error.value)


def test_another_format_is_said(root, mnist):
    folder = root / "mnist" / "3.0.1"
    folder.mkdir(parents=True)
    (folder / "mnist-train.tfrecord-00000-of-00001").write_bytes(b"?")
    with pytest.raises(InvalidValue, match="in the format array_record, of which there is none"):
        stored.load(mnist, root)


WRONG = {
    "size": (lambda images, labels: (images[:, 1:], labels), r"an image \(28, 27\) L instead of \(28, 28\) L"),
    "colours": (lambda images, labels: (np.repeat(images, 3, axis=-1), labels), "RGB instead of"),
    "number": (lambda images, labels: (images[1:], labels[1:]), "11 train images instead of 12"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_images_that_are_not_the_sets_are_refused(wrong, mnist, root, splits):
    change, said = WRONG[wrong]
    changed = {split: change(*arrays) for split, arrays in splits.items()}
    prepare.prepare(dataclasses.replace(mnist, unpack=lambda paths: changed), root)
    with pytest.raises(InvalidValue, match=said):
        stored.load(mnist, root)


def test_labels_out_of_range_are_refused(prepared, mnist, root, splits):
    fewer = dataclasses.replace(mnist, classes=int(splits["train"][1].max()))
    with pytest.raises(InvalidValue, match=f"a label {fewer.classes} instead of 0 to {fewer.classes - 1}"):
        stored.load(fewer, root)


def test_images_stored_as_jpeg_are_noted(server, root, monkeypatch):
    """They are not the original's, which anyone who sees the results must know."""
    from PIL import Image

    def jpeg(image):
        file = io.BytesIO()
        Image.fromarray(image).save(file, "jpeg", quality=75)
        file.seek(0)
        return file

    monkeypatch.setattr(prepare, "_png", jpeg)
    image_set = server.publish("cifar10", random_splits((32, 32, 3)))
    assert "JPEG" in stored.load(image_set, root).note
    monkeypatch.setattr(stored, "_decode", None)
    assert "JPEG" in stored.load(image_set, root).note, "also from the cache"


@pytest.mark.parametrize("blocked", ["data", "data/mnist", "data/mnist/3.0.1"])
def test_a_file_in_the_place_of_a_folder_is_refused(blocked, mnist, root, tmp_path):
    (tmp_path / blocked).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / blocked).write_text("a file")
    with pytest.raises(InvalidValue) as error:
        stored.load(mnist, root)
    assert error.value.field == "data_dir"
    assert (tmp_path / blocked).read_text() == "a file"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_refused(mnist, root):
    root.mkdir(mode=0o500)
    with pytest.raises(InvalidValue, match="Permission denied"):
        stored.load(mnist, root)


def test_unknown_names_are_refused():
    with pytest.raises(InvalidValue, match="one of mnist, cifar10, digits"):
        datasets.load("MNIST")


# The cache.


@pytest.fixture
def cached(prepared, mnist, root):
    """The cache's file for a prepared set that was loaded before."""
    stored.load(mnist, root)
    (file,) = (path for path in Path(os.environ["XDG_CACHE_HOME"]).rglob("*") if path.is_file())
    return file


def test_the_second_load_decodes_nothing(cached, mnist, root, monkeypatch):
    expected = stored._decode(mnist, root, root / "mnist" / "3.0.1")
    monkeypatch.setattr(stored, "_decode", None)
    images = stored.load(mnist, root)._asdict()
    assert_same([images[name] for name in stored.ARRAYS], [expected[name] for name in stored.ARRAYS])


def test_a_damaged_cache_is_rebuilt(cached, mnist, root, prepared):
    good, expected = cached.read_bytes(), stored.load(mnist, root)
    rng = np.random.default_rng(0)
    for place in rng.integers(0, len(good), 40):
        content = bytearray(good)
        content[place] ^= 1 << rng.integers(8)
        cached.write_bytes(content)
        arrays = cache.read(cached, stored.ARRAYS)
        if arrays is not None:
            assert_same([arrays[name] for name in expected._fields[:4]], expected[:4])
    for content in (b"", good[:100], good[:-1], b"?" * len(good)):
        cached.write_bytes(content)
        assert cache.read(cached, stored.ARRAYS) is None
        assert_same(stored.load(mnist, root), expected)
        assert cache.read(cached, stored.ARRAYS) is not None, "whole again"


def test_the_cache_is_not_used_for_other_records(cached, mnist, root, prepared, server):
    """A set that is prepared anew, here with its splits' images inverted, must not give the old arrays."""
    inverted = {split: (255 - images, labels) for split, (images, labels) in random_splits((28, 28, 1)).items()}
    for file in prepared.iterdir():
        file.unlink()
    prepared.rmdir()
    images = stored.load(server.publish("mnist", inverted), root)
    assert as_pairs(*split_of(images, "train")) == as_pairs(*inverted["train"])


def test_a_cache_that_cannot_be_written_only_costs_time(prepared, mnist, root, tmp_path, splits):
    (tmp_path / "cache").write_text("a file where the cache's folder would be")
    for _ in range(2):
        assert as_pairs(*split_of(stored.load(mnist, root), "train")) == as_pairs(*splits["train"])


# Digits.


def test_the_digits_are_scikit_learns_each_in_one_split():
    images = datasets.load("digits")
    assert (len(images.train_labels), len(images.test_labels)) == (1437, 360)
    assert images.train_images.shape[1:] == images.test_images.shape[1:] == (8, 8, 1)
    assert images.train_images.dtype == np.uint8
    assert images.train_images.max() == images.peak
    bunch = sklearn.datasets.load_digits()
    both = as_pairs(*split_of(images, "train")) + as_pairs(*split_of(images, "test"))
    assert sorted(both) == as_pairs(bunch.images.astype(np.uint8), bunch.target)


def test_each_digit_has_its_share_of_the_test_and_of_every_part_of_the_training_set():
    images = datasets.load("digits")
    train, test = (np.bincount(labels, minlength=10) for labels in (images.train_labels, images.test_labels))
    assert np.all(np.abs(test - (train + test) / 5) < 1)
    assert np.bincount(images.train_labels[-144:], minlength=10).min() > 5, "not sorted: its end can be held out"


def test_the_digits_are_the_same_in_every_call():
    assert_same(datasets.load("digits"), datasets.load("digits"))


def test_digits_with_a_data_dir_are_refused(tmp_path):
    with pytest.raises(InvalidValue, match="data_dir"):
        datasets.load("digits", tmp_path)
