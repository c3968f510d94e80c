"""What every config and document is: fixed once made, and refusing what it does not know."""

from pydantic import BaseModel, ConfigDict


class Frozen(BaseModel):
    """A pydantic model that cannot be changed; an unknown field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")
