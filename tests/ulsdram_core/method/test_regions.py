import torch
from torch.testing import assert_close

from ulsdram_core.method.regions import Fusion, PictureRegions

LINKS = PictureRegions(torch.randn(3, 4, 5), torch.tensor([2, 0, 2]), num_windows=4)


def test_mean_over_each_windows_pictures():
    values = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 8.0]])
    wanted = torch.tensor([[3.0, 4.0], [0.0, 0.0], [3.0, 5.0], [0.0, 0.0]])
    assert_close(LINKS.mean_over_pictures(values), wanted)
    assert LINKS.mean_over_pictures(torch.randn(3, 6, 7)).shape == (4, 6, 7)


def test_no_pictures_add_zeros():
    none = PictureRegions(torch.zeros(0, 4, 5), torch.zeros(0, dtype=torch.long), 2)
    assert_close(none.mean_over_pictures(torch.zeros(0, 3)), torch.zeros(2, 3))


def test_no_fusion_changes_nothing():
    text, mask = torch.randn(4, 3, 6), torch.ones(4, 3, dtype=torch.bool)
    fusion = Fusion()
    assert fusion.early(text, mask, LINKS) is text
    assert fusion.sequence_mask(mask, LINKS) is mask
    assert fusion.late(text, mask, LINKS) is text
