"""Language modelling against its definition: which characters a window is of, what they cost, and what is refused."""

import hashlib
import math

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers import at_step
from wrnn_jax.tasks import LanguageConfig, language_task
from wrnn_jax.tasks.language import decoded, encoded, entropy, symbols, unseen_task
from wrnn_jax.validation import InvalidValue

UNITS = ("character", "byte")
# Every stretch of four characters of it is there once, so that one knows where a window is from.
WORDS = "".join(f"{number:x}é" for number in range(16**3, 16**3 + 400))
T = 5


@pytest.fixture(scope="module", params=UNITS)
def task(request):
    return language_task(LanguageConfig(T=T, units=request.param), WORDS.encode()), request.param


def text_of(task, units, inputs, targets):
    """The T + 1 characters of each window, from its inputs and its last target."""
    codes = np.concatenate([np.asarray(inputs).argmax(axis=-1), np.asarray(targets)[:, -1:]], axis=1)
    return task.source.fixed["vocabulary"][codes]


def test_parts_follow_each_other_and_are_90_5_and_5_percent(task):
    task, units = task
    whole = symbols(WORDS, units)
    parts = [task.source.fixed["vocabulary"][task.source.data[name]] for name in ("train", "val", "test")]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    shares = [len(part) / len(whole) for part in parts]
    np.testing.assert_allclose(shares, [0.9, 0.05, 0.05], atol=1 / len(whole))
    np.testing.assert_array_equal(task.source.fixed["vocabulary"], sorted(set(whole.tolist())))


def test_a_batch_is_of_windows_of_the_training_text_each_target_one_step_later(task):
    task, units = task
    inputs, targets = task.batch(task.source, jax.random.key(1), at_step(3), 64)
    kinds = len(task.source.fixed["vocabulary"])
    assert inputs.shape == (64, T, kinds) == (64, task.signature.length, task.signature.inputs)
    np.testing.assert_array_equal(np.asarray(inputs).sum(axis=-1), 1)
    np.testing.assert_array_equal(np.asarray(inputs)[:, 1:].argmax(axis=-1), np.asarray(targets)[:, :-1])
    train = symbols(WORDS, units)[: int(0.9 * len(symbols(WORDS, units)))]
    there = {tuple(train[at : at + T + 1]) for at in range(len(train) - T)}
    assert {tuple(window) for window in text_of(task, units, inputs, targets)} <= there


def test_batches_are_drawn_anew_at_every_step_and_by_the_key_alone(task):
    task, _ = task

    def drawn(seed, step):
        return np.asarray(task.batch(task.source, jax.random.key(seed), at_step(step), 8)[1])

    np.testing.assert_array_equal(drawn(0, 0), drawn(0, 0))
    assert (drawn(0, 0) != drawn(0, 1)).any()
    assert (drawn(0, 0) != drawn(1, 0)).any()


def test_every_beginning_is_as_likely_as_any_other_the_first_and_the_last_too():
    task = language_task(LanguageConfig(T=2), "".join(map(chr, range(256, 256 + 100))).encode())
    inputs, _ = task.batch(task.source, jax.random.key(0), at_step(0), 20_000)
    counts = np.bincount(np.asarray(inputs)[:, 0].argmax(axis=-1), minlength=88)
    assert len(counts) == 88, "90 characters train: windows of 3 begin at 0 to 87"
    expected = 20_000 / 88
    assert np.abs(counts - expected).max() < 5 * math.sqrt(expected)


@pytest.mark.parametrize("part", ["val", "test"])
def test_windows_that_are_evaluated_do_not_overlap_and_cover_the_part(task, part):
    task, _ = task
    codes, split = task.source.data[part], task.splits[part]
    assert split.size == (len(codes) - 1) // T
    inputs, targets = split.examples(task.source, np.arange(split.size))
    codes_of = np.concatenate([np.asarray(inputs).argmax(axis=-1), np.asarray(targets)[:, -1:]], axis=1)
    starts = [next(at for at in range(len(codes)) if (codes[at : at + T + 1] == window).all()) for window in codes_of]
    assert (starts[0], starts[-1]) == (0, len(codes) - 1 - T)
    assert min(np.diff(starts)) >= T


def test_of_a_long_text_as_many_windows_are_evaluated_spread_over_it():
    task = language_task(LanguageConfig(T=1), b"ab" * 40_000)
    split = task.splits["val"]
    assert (len(task.source.data["val"]), split.size) == (4000, 1024)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=60))
def test_entropy_is_its_formula(codes):
    shares = [codes.count(one) / len(codes) for one in set(codes)]
    assert entropy(np.array(codes)) == pytest.approx(-sum(p * math.log(p) for p in shares), abs=1e-12)


def test_chance_knows_the_frequencies_of_the_training_text_alone():
    """Four kinds, evenly, are 2 bits, whatever there is in the other parts."""
    task = language_task(LanguageConfig(T=1), ("abcd" * 45 + "a" * 20).encode())
    assert task.chance["val_bits"] == pytest.approx(2)
    assert task.chance["val_loss"] == pytest.approx(2 * math.log(2))


def test_loss_is_the_cross_entropy_in_nats_and_bits_are_that_over_ln_2(task):
    task, _ = task
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(3, T, task.signature.outputs))
    targets = rng.integers(0, task.signature.outputs, (3, T))
    by_step = np.log(np.exp(logits).sum(-1)) - np.take_along_axis(logits, targets[..., None], -1)[..., 0]
    logits, targets = np.float32(logits), np.int32(targets)
    np.testing.assert_allclose(task.loss(logits, targets), by_step.mean(), rtol=1e-5)
    metrics = task.splits["val"].metrics(logits, targets)
    np.testing.assert_allclose(metrics["val_loss"], by_step.mean(axis=1), rtol=1e-5)
    np.testing.assert_allclose(metrics["val_bits"], by_step.mean(axis=1) / math.log(2), rtol=1e-5)
    assert task.scored({"val_bits": 1.0}) > task.scored({"val_bits": 2.0}), "the fewest bits pick the parameters"


@given(st.text(min_size=1, max_size=30), st.sampled_from(UNITS))
def test_a_prompt_of_seen_characters_is_there_and_back_again(text, units):
    vocabulary = np.unique(symbols(text + "xyz", units))
    codes = encoded(text, vocabulary, units)
    assert codes.dtype == np.int32
    assert decoded(codes, vocabulary, units) == text


def test_what_is_no_character_is_marked_or_refused():
    assert decoded(np.array([0, 1]), np.array([ord("a"), 0xE9]), "byte") == "a\ufffd"
    seen = np.unique(symbols("ab", "character"))
    for unseen in ("abc", "☃", "\udcff", "\0"):
        with pytest.raises(InvalidValue, match="of the 2 characters that were seen, among which is no '") as error:
            encoded(unseen, seen, "character")
        assert error.value.field == "prompt"


@pytest.mark.parametrize(
    ("text", "options", "said"),
    [
        ("ab" * 10, {"T": 1}, "text = 'tiny_shakespeare': must be longer: of its 20 characters only 1 validate, and"),
        ("a", {"T": 1}, "must be longer: of its 1 characters only 0 validate"),
        ("ab" * 100, {"T": 10}, "T = 10: must be at most 9: the text has 200 characters, of which 10 validate"),
        ("é" * 100, {"T": 10, "units": "byte"}, "T = 10: must be at most 9: the text has 200 bytes, of which 10"),
        ("".join(map(chr, range(256, 2000))), {"T": 1}, "units = 'character': must be byte: the text has 1,744 kinds"),
        ("ab" * 100, {"T": 1, "sha256": "0" * 64}, f"must be the text of SHA-256 {'0' * 64}: this has"),
    ],
)
def test_a_text_that_does_not_do_is_refused(text, options, said):
    with pytest.raises(InvalidValue) as error:
        language_task(LanguageConfig(**options), text.encode())
    assert said in str(error.value)


def test_what_is_open_in_the_config_is_settled_by_the_text():
    content = ("ab" * 100).encode()
    task = language_task(LanguageConfig(T=1), content)
    assert task.settled == {"sha256": hashlib.sha256(content).hexdigest()}
    assert language_task(LanguageConfig(T=1, **task.settled), content).settled == task.settled


def test_without_its_text_a_task_is_of_the_same_shapes(task):
    task, units = task
    unseen = unseen_task(LanguageConfig(T=T, units=units), task.signature.inputs)
    assert unseen.signature == task.signature
    assert jax.tree.map(np.shape, unseen.source.fixed) == jax.tree.map(np.shape, task.source.fixed)


@pytest.mark.parametrize(
    "options", [{"T": 0}, {"T": 2.5}, {"units": "word"}, {"sha256": "0" * 63}, {"sha256": "G" * 64}]
)
def test_bad_settings_are_refused_by_name(options):
    with pytest.raises(InvalidValue) as error:
        LanguageConfig(**options)
    assert error.value.field == next(iter(options))
    with pytest.raises(InvalidValue, match=r"^data_dir = 'd': must be left out with --text"):
        LanguageConfig(text="t", data_dir="d")
