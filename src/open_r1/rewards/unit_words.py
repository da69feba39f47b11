"""Words that are units, and words that are not."""

import re
from fractions import Fraction

WORDS = {
    "length": "metre=1 meter=1 inch=127/5000 inche=127/5000 foot=381/1250 feet=381/1250 yard=1143/1250 "
    "mile=201168/125 mi=201168/125 ft=381/1250 yd=1143/1250 in=127/5000",
    "mass": "gram=1/1000 gm=1/1000 pound=45359237/100000000 lb=45359237/100000000 ounce=45359237/1600000000 "
    "oz=45359237/1600000000 ton=1000 tonne=1000",
    "time": "second=1 sec=1 minute=60 min=60 hour=3600 hr=3600 day=86400 week=604800",
    "month": "month=1 year=12 yr=12 decade=120 century=1200",
    "volume": "litre=1/1000 liter=1/1000 gallon=473176473/125000000000 gal=473176473/125000000000",
    "usd": "dollar=1 usd=1 buck=1 cent=1/100",
    "eur": "euro=1 eur=1",
    "gbp": "gbp=1",
    "angle": "degree=1 deg=1",
    "radian": "radian=1 rad=1",
    "celsius": "celsius=1",
    "fahrenheit": "fahrenheit=1",
    "bit": "bit=1 byte=8",
    "energy": "joule=1 calorie=523/125 cal=523/125",
    "power": "watt=1",
    "force": "newton=1",
    "voltage": "volt=1",
    "frequency": "hertz=1",
    "pressure": "pascal=1",
    "amount": "mole=1 mol=1",
    "electron": "electronvolt=1",
}
SYMBOLS = {
    "m": "metre",
    "g": "gram",
    "s": "second",
    "h": "hour",
    "L": "litre",
    "l": "litre",
    "J": "joule",
    "W": "watt",
}
SYMBOLS |= {"N": "newton", "V": "volt", "Hz": "hertz", "Pa": "pascal", "eV": "electronvolt", "mol": "mole"}
PREFIXES = {"n": -9, "µ": -6, "μ": -6, "m": -3, "c": -2, "d": -1, "k": 3, "M": 6, "G": 9, "T": 12}
LONG_PREFIXES = {"nano": -9, "micro": -6, "milli": -3, "centi": -2, "deci": -1, "kilo": 3, "mega": 6, "giga": 9}
SCALED = {"metre", "meter", "gram", "second", "litre", "liter", "joule", "watt", "newton", "volt", "hertz"}
SCALED |= {"pascal", "electronvolt", "mole", "calorie", "byte", "bit"}
ABBREVIATIONS = {"mph": "mile/hour", "kph": "km/hour", "kmph": "km/hour", "kmh": "km/hour", "cc": "cm^3"}
TABLE = {
    name: (dimension, Fraction(factor))
    for dimension, entries in WORDS.items()
    for name, factor in (entry.split("=") for entry in entries.split())
}

SCALES = {
    "hundred": Fraction(100), "thousand": Fraction(1000), "million": Fraction(10**6), "billion": Fraction(10**9),
    "trillion": Fraction(10**12), "lakh": Fraction(10**5), "crore": Fraction(10**7), "dozen": Fraction(12),
    "half": Fraction(1, 2), "third": Fraction(1, 3), "quarter": Fraction(1, 4), "fourth": Fraction(1, 4),
    "fifth": Fraction(1, 5), "sixth": Fraction(1, 6), "seventh": Fraction(1, 7), "eighth": Fraction(1, 8),
    "ninth": Fraction(1, 9), "tenth": Fraction(1, 10), "twelfth": Fraction(1, 12), "hundredth": Fraction(1, 100),
    "thousandth": Fraction(1, 1000), "millionth": Fraction(1, 10**6), "billionth": Fraction(1, 10**9),
}  # fmt: skip
SCALES |= {f"{name}s": factor for name, factor in SCALES.items()} | {"halves": Fraction(1, 2)}
"""Words that are factors. An ordinal is one only in the plural, or after 1."""
ORDINALS = frozenset(name for name, factor in SCALES.items() if factor < 1 and not name.endswith("s"))
GREEK = frozenset(
    re.findall(
        r"\w+",
        "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi omicron rho sigma tau upsilon phi "
        "chi psi omega",
    )
)
POWERS = {"square": 2, "squared": 2, "sq": 2, "cubic": 3, "cubed": 3, "cu": 3}
MEANINGFUL = (
    frozenset(
        re.findall(
            r"\w+",
            """
        pi sqrt sin cos tan log ln exp and or to over times plus mod minus by half halves thirds fourths
        quarters fifths choose divided if when unless is isn are was not no nor of th st nd rd factorial less
        more fewer greater than maybe perhaps possibly either but else other something wrong right correct
        incorrect false true sure unknown squared cubed square cubic root power twice double triple negative
        positive zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen
        sixteen seventeen eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety infinity
        undefined none invalid impossible at most least up about around above below under before after between
        within without except exclusive inclusive minimum maximum onwards upwards downwards beyond onward higher
        lower larger smaller bigger any all some many several both neither etc although though since because
        where for as so then fold opposite reciprocal permille ppm couple myriad
        zillion mil bn inverse remainder modulo base cannot can could may might
        must should would will does do did has have had be been being until till only iff score gross pair pairs
        third fourth fifth sixth seventh eighth ninth tenth
        """,
        )
    )
    | set(SCALES)
    | GREEK
)
"""A quantity that is followed by one of these is another quantity, or none."""
MEANINGFUL_IN_TEXT = MEANINGFUL - frozenset(re.findall(r"\w+", "of to by correct right other two three one pair pairs"))
NEUTRAL = {"unit", "total", "way", "item", "thing", "piece", "time"}
POWER_WORDS = {"square", "sq", "cubic"}
NOT_COUNTED = ("usd", "eur", "gbp", "length", "angle", "celsius", "fahrenheit", "radian")
