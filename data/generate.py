"""Writes the sample data, the same bytes each time: customers.csv, hostile.jsonl and the figures in README.md.

Run `python3 data/generate.py` (Python 3.11, standard library only). It never uses a real person's data: names are
combined from lists, and e-mail addresses end in example.com, example.org or example.net.
"""

import csv
import random
import re
import unicodedata
from pathlib import Path

import describe
import hostile

HERE = Path(__file__).parent
# With this one each broken age and each rare name also stands in a row whose city is American and that has an `id`.
SEED = 2
HEADER = ["id", "first_name", "last_name", "email", "age", "location"]

# How many rows there are of each kind; the kinds of one column add up to 1,000.
LOCATION_KINDS = {"us_with_state": 305, "us_alone": 205, "foreign": 470, "empty": 15, "spaces": 5}
AGE_KINDS = {"whole": 940, "empty": 50, "abc": 2, "41.5": 2, "-3": 2, "  37 ": 2, "forty": 2}
ID_KINDS = {"row_number": 990, "empty": 10}
NAME_KINDS = {"combined": 976, "rare": 24}

FIRST_NAMES = """
Abel Ada Alma Amara André Anne-Marie Åsa Beatriz Bruno Calvin Célia Chloé Clara Dario Dolores D'Arcy Edith Elif Emil
Esther Fatima Felix Fiona Gita Greta Hana Hugo Ida Imani Ines Iris Ivan Jamal Jean-Luc Joan José Judith Kai Karin Kofi
Lars Leila Lena Łukasz Mae Malik Marta Mei Miguel Mila Nadia Ngozi Nils Noor Olga Omar Otto Paloma Pia Priya Quinn
Rafael Renée Rosa Ruben Sami Selma Siobhán Søren Tariq Tess Tomás Uma Vera Viggo Wanda Xavier Yara Yusuf Zoë
""".split()
LAST_NAMES = """
Abbott Achterberg Adeyemi Álvarez Anand Barlow Becker Bianchi Brennan Calloway Castro Chaudhry Cho Contreras Dahl
D'Angelo Delacroix Diallo Duarte Eklund Ellery Farah Ferreira Fischer Fontaine Garrity Gómez Grünwald Hale Haraldsen
Hashimi Holloway Ibarra Iyer Jansen Jovanović Kaplan Kowalczyk Kruse Lindqvist Lockhart Marchetti Mbeki Mendoza Moreau
Müller Nakata Ndiaye Núñez O'Brien O'Connell O’Malley Okafor Olsen Østergaard Pacheco Parr-Whitlow Petrov Quiroga
Rahman Rask Reyes Rossi Saint-Clair Sandoval Şahin Sato Schäfer Smith-Jones Tanaka Thorne Ueda Varga Vasquez Voss
Wójcik Wren Xu Yilmaz Zielińska
""".split()
# Whole names, so that first and last name are of one script; the first two need quotes in a CSV file.
RARE_NAMES = [
    ("Hector", "Marlowe, Jr."),
    ('Roberta "Bobbie"', "Stannard"),
    ("Юлия", "Соколова"),
    ("美咲", "高橋"),
    ("ليلى", "حداد"),
    ("Ελένη", "Παππά"),
    ("지훈", "박"),
    ("अनन्या", "शर्मा"),
]

US_CITIES = """
Albuquerque, New Mexico|Anchorage, Alaska|Atlanta, Georgia|Augusta, Maine|Austin, Texas|Baltimore, Maryland
Birmingham, Alabama|Boise, Idaho|Boston, Massachusetts|Burlington, Vermont|Cañon City, Colorado|Charleston, West Virginia
Charlotte, North Carolina|Chicago, Illinois|Cleveland, Ohio|Coeur d'Alene, Idaho|Columbus, Ohio|Denver, Colorado
Des Moines, Iowa|Detroit, Michigan|El Paso, Texas|Española, New Mexico|Fargo, North Dakota|Hartford, Connecticut
Hilo, Hawaii|Honolulu, Hawaii|Houston, Texas|Indianapolis, Indiana|Jackson, Mississippi|Kansas City, Missouri
Las Vegas, Nevada|Lee's Summit, Missouri|Lincoln, Nebraska|Little Rock, Arkansas|Los Angeles, California
Louisville, Kentucky|Madison, Wisconsin|Manchester, New Hampshire|Memphis, Tennessee|Miami, Florida
Minneapolis, Minnesota|Missoula, Montana|New Orleans, Louisiana|New York City, New York|Newark, New Jersey
Oklahoma City, Oklahoma|Philadelphia, Pennsylvania|Phoenix, Arizona|Portland, Oregon|Providence, Rhode Island
Richmond, Virginia|Salt Lake City, Utah|San Francisco, California|Seattle, Washington|Sioux Falls, South Dakota
Springfield, Illinois|St. Louis, Missouri|Tulsa, Oklahoma|Washington, District of Columbia|Wichita, Kansas
Wilmington, Delaware|Winston-Salem, North Carolina
""".strip().replace("\n", "|").split("|")
FOREIGN_CITIES = """
Aarhus, Denmark|Accra, Ghana|Almería, Spain|Amman, Jordan|Asunción, Paraguay|Athens, Greece|Auckland, New Zealand
Bangkok, Thailand|Beirut, Lebanon|Berlin, Germany|Birmingham, United Kingdom|Bogotá, Colombia|Brno, Czechia
Budapest, Hungary|Busan, South Korea|Cairo, Egypt|Cape Town, South Africa|Chennai, India|Colombo, Sri Lanka
Cork, Ireland|Córdoba, Argentina|Dakar, Senegal|Dhaka, Bangladesh|Dublin, Ireland|Gdańsk, Poland|Göteborg, Sweden
Hanoi, Vietnam|Helsinki, Finland|Izmir, Türkiye|Jakarta, Indonesia|Kampala, Uganda|Kathmandu, Nepal|Köln, Germany
Kraków, Poland|Kyiv, Ukraine|L'Aquila, Italy|Lagos, Nigeria|Lahore, Pakistan|Leipzig, Germany|Lima, Peru
London, United Kingdom|Lviv, Ukraine|Lyon, France|Malmö, Sweden|Marseille, France|Mérida, Mexico|Montréal, Canada
Mumbai, India|München, Germany|N'Djamena, Chad|Nairobi, Kenya|Nantes, France|Osaka, Japan|Oslo, Norway|Paris, France
Porto, Portugal|Praha, Czechia|Quito, Ecuador|Rabat, Morocco|Reykjavík, Iceland|Riga, Latvia|Rosario, Argentina
São Paulo, Brazil|Sevilla, Spain|'s-Hertogenbosch, Netherlands|Stockholm, Sweden|Sydney, Australia|Tallinn, Estonia
Tbilisi, Georgia|Tokyo, Japan|Toronto, Canada|Tunis, Tunisia|Utrecht, Netherlands|Vancouver, Canada|Vilnius, Lithuania
Zürich, Switzerland|東京|Αθήνα|Алматы|القاهرة
""".strip().replace("\n", "|").split("|")
FOREIGN_WITH_COUNTRY = 0.3
ODDLY_WRITTEN = 0.08


class Dice:
    """Draws that stay the same in every Python: of the random module only random() is promised to."""

    def __init__(self, seed):
        self.draw = random.Random(seed).random

    def below(self, limit):
        return int(self.draw() * limit)

    def pick(self, choices):
        return choices[self.below(len(choices))]

    def shuffled(self, kinds):
        """One entry per row: each kind as often as `kinds` says, in a drawn order."""
        deck = [kind for kind, count in kinds.items() for _ in range(count)]
        for last in range(len(deck) - 1, 0, -1):
            other = self.below(last + 1)
            deck[last], deck[other] = deck[other], deck[last]
        return deck


def main():
    write_csv(HERE / "customers.csv", customers(Dice(SEED)))
    hostile.write(HERE / "hostile.jsonl")
    describe.update(HERE)


def write_csv(path, rows):
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(HEADER)
        writer.writerows(rows)


def customers(dice):
    decks = [dice.shuffled(kinds) for kinds in (ID_KINDS, NAME_KINDS, AGE_KINDS, LOCATION_KINDS)]
    for row, (id_kind, name_kind, age_kind, location_kind) in enumerate(zip(*decks, strict=True), start=1):
        first, last = name(dice, name_kind)
        yield [
            "" if id_kind == "empty" else str(row),
            first,
            last,
            email(dice, row, first, last),
            age(dice, age_kind),
            location(dice, location_kind),
        ]


def name(dice, kind):
    return dice.pick(RARE_NAMES) if kind == "rare" else (dice.pick(FIRST_NAMES), dice.pick(LAST_NAMES))


def email(dice, row, first, last):
    """Unique by the row number; a name that has no ASCII letters gives only the number."""
    letters = unicodedata.normalize("NFKD", f"{first}.{last}").encode("ascii", "ignore").decode().lower()
    local = re.sub(r"[^a-z.]", "", letters).strip(".") or "customer"
    return f"{local}.{row}@example.{dice.pick(['com', 'org', 'net'])}"


def age(dice, kind):
    if kind == "whole":
        return str(18 + dice.below(82))
    return "" if kind == "empty" else kind


def location(dice, kind):
    if kind in ("empty", "spaces"):
        return "" if kind == "empty" else "   "
    place = dice.pick(FOREIGN_CITIES if kind == "foreign" else US_CITIES)
    alone = kind == "us_alone" or (kind == "foreign" and dice.draw() >= FOREIGN_WITH_COUNTRY)
    place = place.partition(",")[0] if alone else place
    return oddly_written(dice, place) if dice.draw() < ODDLY_WRITTEN else place


def oddly_written(dice, place):
    return dice.pick([str.upper, str.lower, str.swapcase, alternating, padded, spaced_comma])(place)


def alternating(place):
    return "".join(char.upper() if index % 2 else char.lower() for index, char in enumerate(place))


def padded(place):
    return f"  {place} "


def spaced_comma(place):
    return place.replace(",", " ,") if "," in place else f"{place} "


if __name__ == "__main__":
    main()
