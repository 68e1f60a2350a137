"""`cloudseg serve`: one web application that reads. STAC API, tiles, features, files and a map over catalog and store.

It writes nothing, opens nothing that a request names by URL or path, and needs the extra `serve`, not torch.
"""

import warnings

# stac-fastapi 6.3 takes orjson where it is installed, by a class that FastAPI deprecates.
warnings.filterwarnings("ignore", message="ORJSONResponse is deprecated")
