"""URIs as they may be kept: without the user part and without what a query signs or unlocks."""

import re

# In a name whose value is a secret. `max_tokens`, `tokenizer`, `sigma` and `key` are plain words.
SECRET_NAME = (
    r"(?:(?:secret|passw(?:or)?d|passphrase|passwd)\w{0,20}|pwd|token|jwt|signature|sig|webhook"
    r"|credentials?|cookies?|session[_-]?(?:id|key)|connection[_-]?string"
    r"|(?:access|account|api|app|application|auth|encryption|function|functions|license|master"
    r"|private|shared|signing|storage|subscription)[_-]?key)(?![a-z])"
)
_USER = re.compile(r"(?<=://)[^/?#\s\"'<>]{0,500}@")
_USER_WITH_SLASH = re.compile(r"(?<=://)[^/:?#\s@]{0,200}:(?!\d+(?:/|$))[^\s@\"'<>]{0,200}@")
_SECRET_PARAMETER = re.compile(
    rf"(?:[\w.-]*{SECRET_NAME}[\w-]*|key|code|GoogleAccessId|AWSAccessKeyId|X-(?:Amz|Goog)-[\w-]*)"
    r"=.*",
    re.IGNORECASE,
)


def without_user(text: str, mask: str = "") -> str:
    """Return the text with `user:password@` of every URI in it replaced."""
    return _USER_WITH_SLASH.sub(mask, _USER.sub(mask, text))


def without_secrets(uri: str) -> str:
    """Return the URI as it may be written down; one that holds no secret stays as it is."""
    if "://" not in uri:
        return uri
    head, separator, query = without_user(uri).partition("?")
    parameters = query.split("&")
    kept = "&".join(part for part in parameters if not _SECRET_PARAMETER.fullmatch(part))
    return f"{head}{separator}{kept}" if kept else head
