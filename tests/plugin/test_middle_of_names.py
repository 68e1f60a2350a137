"""Names of scenes are cut where they are alike."""

from cloudseg_ui.formats import middle


def test_two_scenes_of_a_day_stay_apart():
    names = [f"S2A_MSIL1C_20180501T105031_N0206_R051_T31U{tile}_20180501T130157" for tile in ("DQ", "EQ")]
    short = [middle(name, 40) for name in names]
    assert short[0] != short[1]
    assert all(len(name) == 40 and name.startswith("S2A_") and name.endswith("T130157") for name in short)
    assert middle("T31UDQ") == "T31UDQ"
