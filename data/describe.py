"""Counts what README.md says about the files, between its markers; never says what it has not read from them."""

import csv
import re
from collections import Counter

import hostile


def update(directory):
    """Replaces each `<!-- NAME -->` to `<!-- end -->` part of README.md by fresh figures."""
    cities = read(directory / "us_cities.csv")
    parts = {
        "customers": customer_facts(read(directory / "customers.csv"), cities),
        "hostile": hostile_table(),
        "us_cities": city_facts(cities),
    }
    path = directory / "README.md"
    text = path.read_text(encoding="utf-8")
    for name, lines in parts.items():
        body = f"<!-- {name} -->\n" + "\n".join(lines) + "\n<!-- end -->"
        text, found = re.subn(rf"<!-- {name} -->\n.*?<!-- end -->", lambda _: body, text, flags=re.DOTALL)
        assert found == 1, f"README.md has the marker {name} once"
    path.write_bytes(text.encode())


def read(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def customer_facts(rows, cities):
    ages = [row["age"] for row in rows]
    broken = Counter(age for age in ages if age and not re.fullmatch("[0-9]+", age))
    places = [row["location"] for row in rows]
    names = [row["first_name"] + row["last_name"] for row in rows]
    return table(
        "rows",
        ("in all", len(rows)),
        ("with a blank `id`", blanks(row["id"] for row in rows)),
        ("with a blank `age`", blanks(ages)),
        ("with a broken `age`: " + ", ".join(f"`\"{age}\"` {n}" for age, n in broken.items()), broken.total()),
        ("with a blank `location` (empty, or spaces only)", blanks(places)),
        ("with a comma in `location`", sum("," in place for place in places)),
        ("with spaces around a `location`, not blank", sum(place.strip() not in ("", place) for place in places)),
        ("with a character outside ASCII in a name", sum(not name.isascii() for name in names)),
        ("with a name in quotes in the file (a comma or a quote in it)", sum("," in n or '"' in n for n in names)),
        *fates(rows, cities),
    )


def fates(rows, cities):
    """By the plainest rule: the location up to its first comma, trimmed, ignoring case, is looked up in us_cities."""
    known = {row["city"].upper() for row in cities}
    american = [row for row in rows if row["location"].partition(",")[0].strip().upper() in known]
    with_id = sum(row["id"].strip() != "" for row in american)
    return [
        ("whose city is in `us_cities.csv`", len(american)),
        ("of these with an `id`", with_id),
        ("neither that nor with a blank `location`", len(rows) - with_id - blanks(row["location"] for row in rows)),
    ]


def blanks(values):
    return sum(value.strip() == "" for value in values)


def hostile_table():
    head = ["| line | what it is | by RFC 8259 |", "|---:|---|---|"]
    return head + [
        f"| {line} | {what} | {hostile.grammar(record)} |" for line, (what, record) in enumerate(hostile.CASES, start=1)
    ]


def city_facts(rows):
    names = Counter(row["city"].upper() for row in rows)
    pairs = Counter((row["city"], row["state"]) for row in rows)
    most, times = max(names.items(), key=lambda item: (item[1], item[0]))
    return table(
        "count",
        ("rows", len(rows)),
        ("distinct names, ignoring case", len(names)),
        ("states, with the District of Columbia", len({row["state"] for row in rows})),
        ("smallest population", min(int(row["population"]) for row in rows)),
        ("pairs of city and state that stand on more than one row", sum(n > 1 for n in pairs.values())),
        ("names with a character outside ASCII", sum(not name.isascii() for name in names)),
        (f"rows of the most frequent name, {most.title()}", times),
    )


def table(unit, *facts):
    return [f"| | {unit} |", "|---|---:|"] + [f"| {what} | {count:,} |" for what, count in facts]
