"""Stage: the figures that say how the service is."""

from cloudseg.monitor.figures import Figures, Prices, read_figures
from cloudseg.runtime import open_catalog, read_settings


def metrics() -> Figures:
    """Return what is measured now: models, masks, latency, ingest, nights, labels, requests, alerts, bytes, cost.

    Only the catalog is read, so the figures are there while the store does not answer.
    """
    settings = read_settings()
    prices = Prices(gpu_hour=settings.gpu_hour_price, cpu_hour=settings.cpu_hour_price)
    return read_figures(open_catalog(settings), prices=prices)
