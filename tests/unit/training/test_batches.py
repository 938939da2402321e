from __future__ import annotations

import pytest
import torch

from adapterctl.training.batches import Collator, EpochBatches, Plan, answer_loss, answer_positions, epoch_order
from adapterctl.training.rows import TokenRow

LENGTHS = tuple(5 + (i * 37) % 60 for i in range(203))


def _plan(**changes: object) -> Plan:
    values = {"lengths": LENGTHS, "batch_size": 4, "accumulation": 1, "epochs": 3, "grouped": True, "seed": 0} | changes
    return Plan(**values)  # type: ignore[arg-type]


@pytest.mark.parametrize("grouped", [True, False])
@pytest.mark.parametrize("count", [1, 3, 4, 9, 203])
def test_every_row_stands_in_one_batch(grouped: bool, count: int) -> None:
    batches = epoch_order(LENGTHS[:count], 4, grouped=grouped, seed=1, epoch=0)
    assert sorted(row for batch in batches for row in batch) == list(range(count))
    assert len(batches) == -(-count // 4)
    assert sum(len(batch) != 4 for batch in batches) == (count % 4 != 0)


def test_order_depends_on_seed_and_epoch_alone() -> None:
    first = epoch_order(LENGTHS, 4, grouped=True, seed=1, epoch=0)
    torch.manual_seed(99)
    assert epoch_order(LENGTHS, 4, grouped=True, seed=1, epoch=0) == first
    assert epoch_order(LENGTHS, 4, grouped=True, seed=1, epoch=1) != first
    assert epoch_order(LENGTHS, 4, grouped=True, seed=2, epoch=0) != first


def test_grouping_by_length_saves_padding() -> None:
    tokens, padded = _plan().tokens_by_step()
    _, padded_without = _plan(grouped=False).tokens_by_step()
    assert tokens[-1] == 3 * sum(LENGTHS)
    assert tokens[-1] / padded > 0.9
    assert tokens[-1] / padded_without < 0.75


@pytest.mark.parametrize("accumulation", [1, 3, 51, 60])
def test_plan_counts_steps_and_tokens_by_step(accumulation: int) -> None:
    plan = _plan(accumulation=accumulation)
    assert plan.batches_per_epoch == 51
    assert plan.steps_per_epoch == {1: 51, 3: 17, 51: 1, 60: 1}[accumulation]
    tokens, _ = plan.tokens_by_step()
    assert len(tokens) == plan.steps == 3 * plan.steps_per_epoch
    assert tokens[0] == sum(LENGTHS[row] for batch in plan.batches(0)[:accumulation] for row in batch)
    assert tokens[plan.steps_per_epoch - 1] == sum(LENGTHS)


def test_sampler_gives_the_epoch_it_is_set_to() -> None:
    sampler = EpochBatches(_plan())
    sampler.epoch = 2
    assert list(sampler) == _plan().batches(2)
    assert len(sampler) == 51


def test_prompts_and_padding_have_no_label() -> None:
    batch = Collator(0)([TokenRow("a", (7, 8, 9), 2), TokenRow("b", (7, 8, 9, 10, 11), 2)])
    assert batch["input_ids"].tolist() == [[7, 8, 9, 0, 0], [7, 8, 9, 10, 11]]
    assert batch["labels"].tolist() == [[-100, -100, 9, -100, -100], [-100, -100, 9, 10, 11]]


def test_logits_are_asked_for_only_where_an_answer_follows() -> None:
    labels = torch.tensor([[-100, -100, 9, -100, -100], [-100, -100, -100, -100, 11]])
    assert answer_positions(labels).tolist() == [1, 3]


def test_loss_is_that_of_all_logits() -> None:
    """The reference is written out token by token, in float64, from the definition."""
    draw = torch.Generator().manual_seed(3)
    logits = torch.randn(2, 5, 13, generator=draw)
    labels = torch.tensor([[-100, -100, 9, -100, -100], [-100, -100, 4, 10, 11]])
    expected = 0.0
    for row in range(2):
        for position in range(1, 5):
            if (label := int(labels[row, position])) != -100:
                expected -= float(logits[row, position - 1].double().log_softmax(-1)[label])
    positions = answer_positions(labels)
    found = answer_loss(logits[:, positions], labels, positions, 4)
    assert float(found) == pytest.approx(expected / 4, rel=1e-6)
