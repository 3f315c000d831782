import pytest
import torch

from mrn_components import AttentionPool


@pytest.fixture
def pool():
    module = AttentionPool()
    module.build(32, 2)
    torch.nn.init.normal_(module.query)
    return module.double()


def slices(count):
    return torch.randn(count, 32, dtype=torch.float64)


def test_it_is_the_attention_of_one_query(pool, close):
    tokens = slices(6)
    expected = [
        torch.nn.functional.scaled_dot_product_attention(pool.query[None], volume, volume)
        for volume in tokens.split([3, 1, 2])
    ]
    close(pool(tokens, [3, 1, 2]), torch.cat(expected), 1e-12)


def test_of_one_slice_it_is_the_slice(pool, close):
    tokens = slices(1)
    close(pool(tokens, [1]), tokens, 1e-12)


def test_order_of_slices_does_not_matter(pool, close):
    tokens = slices(5)
    close(pool(tokens.flip(0), [5]), pool(tokens, [5]), 1e-12)


def test_it_starts_as_the_mean_and_learns_from_there(close):
    pool = AttentionPool()
    pool.build(32, 2)
    tokens = torch.randn(5, 32)
    token = pool(tokens, [5])
    close(token, tokens.mean(0, keepdim=True))
    (token**2).sum().backward()
    assert pool.query.grad.abs().max() > 0
