"""Storage options: one set of names per cloud, turned into those of the libraries."""

from collections.abc import Mapping
from typing import Any

from pipelines.lake.errors import StorageError

_S3_SCHEMES = frozenset({"s3", "s3a", "s3n"})
LOCAL_SCHEMES = frozenset({"", "file", "local"})

# scheme -> option -> (fsspec keyword, object_store key); both libraries name things differently
OPTION_NAMES: Mapping[str, Mapping[str, tuple[str, str]]] = {
    "s3": {
        "endpoint_url": ("endpoint_url", "aws_endpoint_url"),
        "access_key_id": ("key", "aws_access_key_id"),
        "secret_access_key": ("secret", "aws_secret_access_key"),
        "session_token": ("token", "aws_session_token"),
        "region": ("region", "aws_region"),
        "anonymous": ("anon", "aws_skip_signature"),
    },
    "gs": {"service_account": ("token", "google_service_account")},
    "abfss": {
        "account_name": ("account_name", "azure_storage_account_name"),
        "account_key": ("account_key", "azure_storage_account_key"),
    },
}
_PREFIXES = ("aws_", "google_", "azure_storage_")
_ALIASES = {"gcs": "gs", "az": "abfss", "abfs": "abfss", "adl": "abfss"}


def canonical_scheme(scheme: str) -> str:
    """Return the one name of a storage: "file", "s3", "gs", "abfss", ..."""
    if scheme in LOCAL_SCHEMES:
        return "file"
    return "s3" if scheme in _S3_SCHEMES else _ALIASES.get(scheme, scheme)


def own_options(scheme: str, options: Mapping[str, str]) -> dict[str, str]:
    """Return the options in canonical names; an unknown one of a known cloud is an error."""
    scheme = canonical_scheme(scheme)
    known = OPTION_NAMES.get(scheme)
    if known is None:
        return dict(options)
    others = {name for key, names in OPTION_NAMES.items() if key != scheme for name in names}
    own = {}
    for key, value in options.items():
        name = key.lower()
        for prefix in _PREFIXES:
            name = name.removeprefix(prefix)
        if name in known:
            own[name] = value
        elif name not in others:
            raise StorageError(
                f"found storage option {key!r} for {scheme}://, expected one of {sorted(known)}"
            )
    return own


def fsspec_options(scheme: str, options: Mapping[str, str]) -> dict[str, Any]:
    """Return canonical options as keywords of the filesystem."""
    names = OPTION_NAMES.get(scheme)
    if names is None:
        return dict(options)
    keywords: dict[str, Any] = {names[key][0]: value for key, value in options.items()}
    # a listing must show what other processes wrote a moment ago
    keywords["use_listings_cache"] = False
    if scheme == "s3":
        region = keywords.pop("region", None)
        if region:
            keywords["client_kwargs"] = {"region_name": region}
        if "anon" in keywords:
            keywords["anon"] = keywords["anon"].lower() == "true"
    return keywords
