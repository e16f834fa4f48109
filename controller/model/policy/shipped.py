"""The policies in the package, by name. Each is a file ``configs/policies/NAME.yaml``."""

from __future__ import annotations

from types import MappingProxyType

#: The policy of an instance without --policy.
DEFAULT_POLICY = "strict"
#: Each shipped policy with its purpose.
SHIPPED_POLICIES = MappingProxyType(
    {
        "strict": "the default: images of one registry folder, few rights",
        "production": "strict for hosts with several teams: owners are listed, images have a digest",
        "development": "this project's demo: local images are trusted by name",
        "home": "a machine of your own: public images, published ports, images that start as root",
    }
)
