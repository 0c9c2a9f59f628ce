"""The grammar of covariates: a checkpoint stores only names, so a name carries its rule.

Travels with the weights: imports only the standard library.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

SEXES = dict.fromkeys(("male", "m", "man"), "male") | dict.fromkeys(("female", "f", "w", "woman"), "female")
"""Lower-case words for a sex -> the word that the package uses."""
_SEX_VALUES = {"male": 1.0, "female": 0.0}


@dataclass(frozen=True)
class Covariate:
    """One covariate of a survival model, by the rule in its name.

    `age` is a number and `sex` is "male" (1), "female" (0), a word for either such as `m` or `w`, or a number;
    `smoking=current` is 1 where `smoking` says current, and `bmi?` is 1 where `bmi` is missing.

    >>> [Covariate(name).column for name in ("age", "bmi?", "smoking=never")]
    ['age', 'bmi', 'smoking']
    """

    name: str

    @property
    def level(self) -> str | None:
        """Text that counts as 1; None for numbers and for indicators of missing values."""
        _, is_level, level = self.name.partition("=")
        return level if is_level else None

    @property
    def is_indicator(self) -> bool:
        """Says where another value is missing."""
        return self.level is None and self.name.endswith("?")

    @property
    def is_rule(self) -> bool:
        """The name is a rule and not that of a column."""
        return self.level is not None or self.is_indicator

    @property
    def column(self) -> str:
        """Column that it is made of."""
        return self.name.removesuffix("?") if self.level is None else self.name.partition("=")[0]

    def value(self, known: Mapping[str, Any]) -> float:
        """Returns the covariate of one patient, NaN where it is unknown.

        Args:
            known: values by column, missing ones left out.

        Raises:
            ValueError: a value that is no finite number, or a number where text is expected.

        >>> Covariate("sex").value({"sex": "male"}), Covariate("smoking=never").value({"smoking": "former"})
        (1.0, 0.0)
        """
        value = known.get(self.column)
        if self.is_indicator:
            return float(value is None)
        if value is None:
            return math.nan
        number = self.number(value, self.column)
        if self.level is not None:
            if number is not None:
                raise ValueError(f"covariates: {self.name}: expected text in {self.column}, got {value!r}")
            return float(str(value) == self.level)
        if number is None or math.isinf(number):
            raise ValueError(f"covariates: {self.name}: expected a finite number, got {value!r}")
        return number

    @staticmethod
    def number(value: Any, column: str = "") -> float | None:
        """A number, or the number that stands for a sex; None for other text.

        In the column `sex` other words for it count too, such as `m` and `w`.
        """
        if column == "sex" and isinstance(value, str):
            value = SEXES.get(value.strip().lower(), value)
        try:
            return _SEX_VALUES[value] if value in _SEX_VALUES else float(value)
        except (TypeError, ValueError):
            return None
