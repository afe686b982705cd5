"""The start of the ladder: the configuration as it was written."""

from fallbacks.rung import Rung, setting

V3 = Rung(name="v3", summary="the experiment as configured", transform=setting({}))
