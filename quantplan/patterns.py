"""Regular expressions that people and their files give."""

import re
import warnings


def regular_expression(text: str) -> re.Pattern[str]:
    """ValueError with the reason for a text that is none, or one too large to be compiled."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what a later Python may read otherwise
            return re.compile(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except (re.error, OverflowError) as error:
        raise ValueError(str(error)) from None
