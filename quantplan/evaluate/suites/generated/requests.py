"""Requests that tools can fulfil, with the calls that do, and some that need no tool."""

import json
from collections.abc import Callable
from typing import Any

from quantplan.evaluate.suites.generated.draw import Draw
from quantplan.evaluate.suites.generated.offered_tools import CURRENCIES, LANGUAGES, ROOMS, TOOLS
from quantplan.evaluate.suites.tool_calls import ToolCall

_CITIES = ("Oslo", "Lisbon", "Vienna", "Prague", "Dublin", "Athens", "Helsinki", "Nairobi", "Lima", "Toronto", "Hanoi")
_PEOPLE = ("Mara", "Jonas", "Priya", "Elena", "Tom", "Aisha", "Felix", "Noor", "Ines", "Oskar")
_GOODS = ("desk lamp", "rain jacket", "coffee grinder", "tent", "bike lock", "wool blanket", "backpack")
_FOODS = ("milk", "apples", "rice", "butter", "tea", "onions", "flour", "eggs")
_MESSAGES = (
    "The train is late",
    "I will bring the cake",
    "The meeting is over",
    "Please call me back",
    "The keys are here",
)
_TITLES = ("Team lunch", "Budget review", "Piano lesson", "Project start", "House viewing")
_PLACES = ("Blue Door", "Casa Verde", "Old Mill", "Golden Fork")
_ARTISTS = ("Nina Simone", "Miles Davis", "Clara Schumann", "Fela Kuti")
_STREETS = ("Mill Lane", "Station Road", "Park Street", "Hill Road")
_LABELS = ("dentist", "school run", "pasta", "laundry", "stretching")
_NO_TOOL = (
    "Say hello to me in French.",
    "What is the opposite of hot?",
    "Write a two-line poem about rain.",
    "Which is larger, 17 or 71?",
    "Thank you, that was all for today.",
    "How many letters does the word cat have?",
    "Give me another word for happy.",
    "What colour is a ripe banana?",
    "Name three seasons of the year.",
    "Explain in one sentence what a dictionary is.",
    "Which day comes after Thursday?",
    "Tell me a short joke about a cat.",
)


_SIMILAR = {
    "set_alarm": "start_timer",
    "start_timer": "set_alarm",
    "create_event": "book_table",
    "book_table": "create_event",
}
_SIMILAR |= {"send_message": "translate", "translate": "send_message", "add_to_list": "search_products"}

_Request = tuple[str, str, dict[str, Any]]  # what is asked, the tool, its arguments


def _weather(draw: Draw) -> _Request:
    city, days = draw.one(_CITIES), draw.whole(2, 7)
    if draw.chance(0.5):
        return (
            f"What will the weather be like in {city} in the next {days} days?",
            "get_weather",
            {"city": city, "days": days},
        )
    text = f"Get me the forecast for {city} for {days} days, in degrees Fahrenheit."
    return text, "get_weather", {"city": city, "days": days, "unit": "fahrenheit"}


def _alarm(draw: Draw) -> _Request:
    time, label = _time(draw), draw.one(_LABELS)
    return f'Set an alarm for {time} with the label "{label}".', "set_alarm", {"time": time, "label": label}


def _timer(draw: Draw) -> _Request:
    minutes, label = draw.whole(3, 90), draw.one(_LABELS)
    text = f'Start a timer of {minutes} minutes with the label "{label}".'
    return text, "start_timer", {"minutes": minutes, "label": label}


def _currency(draw: Draw) -> _Request:
    source, target = draw.some(CURRENCIES, 2)
    amount = draw.whole(5, 950)
    text = f"How much is {amount} {source} in {target}?"
    return text, "convert_currency", {"amount": amount, "source": source, "target": target}


def _message(draw: Draw) -> _Request:
    person, text = draw.one(_PEOPLE), draw.one(_MESSAGES)
    if draw.chance(0.5):
        return f'Send {person} the message "{text}".', "send_message", {"to": person, "text": text}
    arguments = {"to": person, "text": text, "urgent": True}
    return f'Send {person} the message "{text}", and mark it as urgent.', "send_message", arguments


def _event(draw: Draw) -> _Request:
    title, date, time, guests = draw.one(_TITLES), _date(draw), _time(draw), draw.some(_PEOPLE, 2)
    text = f'Put "{title}" into my calendar on {date} at {time}, with {guests[0]} and {guests[1]} as guests.'
    return text, "create_event", {"title": title, "date": date, "time": time, "guests": guests}


def _search(draw: Draw) -> _Request:
    goods, price = draw.one(_GOODS), draw.whole(2, 30) * 5
    text = f'Search the shop for "{goods}" for at most {price} euros, only what is in stock, sorted by rating.'
    arguments = {"query": goods, "max_price": price, "in_stock": True, "sort": "rating"}
    return text, "search_products", arguments


def _table(draw: Draw) -> _Request:
    place, guests, date, time = draw.one(_PLACES), draw.whole(2, 12), _date(draw), _time(draw)
    text = f"Book a table for {guests} people at the restaurant {place} on {date} at {time}."
    return text, "book_table", {"restaurant": place, "guests": guests, "date": date, "time": time}


def _light(draw: Draw) -> _Request:
    room, percent = draw.one(ROOMS), draw.whole(1, 9) * 10
    if draw.chance(0.4):
        return f"Switch off the light in the {room}.", "set_light", {"room": room, "on": False}
    text = f"Switch on the light in the {room} with a brightness of {percent} percent."
    return text, "set_light", {"room": room, "on": True, "brightness": percent}


def _list(draw: Draw) -> _Request:
    foods = draw.some(_FOODS, 3)
    text = f"Put {foods[0]}, {foods[1]} and {foods[2]} on the shopping list, in this order."
    return text, "add_to_list", {"list": "shopping", "items": foods}


def _translation(draw: Draw) -> _Request:
    text, language = draw.one(_MESSAGES), draw.one(LANGUAGES)
    asked = f'Use the translation tool to turn "{text}" into {language.capitalize()}.'
    return asked, "translate", {"text": text, "language": language}


def _music(draw: Draw) -> _Request:
    artist = draw.one(_ARTISTS)
    if draw.chance(0.5):
        return f"Play something by {artist}.", "play_music", {"artist": artist}
    return f"Play music by {artist} in random order.", "play_music", {"artist": artist, "shuffle": True}


def _parcel(draw: Draw) -> _Request:
    number = f"{draw.one('ABKRT')}{draw.one('DFNPX')}{draw.whole(100000, 999999)}"
    return f"Where is my parcel with the number {number}?", "track_parcel", {"number": number}


def _route(draw: Draw) -> _Request:
    (first, second), (start, end) = draw.some(_STREETS, 2), draw.some(_CITIES, 2)
    ends = [
        {"street": f"{street} {draw.whole(1, 90)}", "city": city} for street, city in ((first, start), (second, end))
    ]
    mode = draw.one(("bike", "foot"))
    text = f"Get the route by {mode} from {ends[0]['street']} in {start} to {ends[1]['street']} in {end}."
    return text, "get_route", {"start": ends[0], "end": ends[1], "mode": mode}


def _time(draw: Draw) -> str:
    return f"{draw.whole(10, 22)}:{draw.whole(1, 11) * 5:02d}"


def _date(draw: Draw) -> str:
    return f"{draw.whole(2026, 2028)}-{draw.whole(1, 12):02d}-{draw.whole(1, 28):02d}"


# --- items


def _item(draw: Draw, text: str, calls: list[tuple[str, dict[str, Any]]], others: int) -> dict[str, Any]:
    """Offers the tools that are called, one that is easily taken for the first, and ``others``, in a drawn order."""
    needed = [name for name, _ in calls]
    names = list(dict.fromkeys([*needed, *(_SIMILAR[name] for name in needed[:1] if name in _SIMILAR)]))
    names += draw.some([name for name in TOOLS if name not in names], others)
    made = tuple(ToolCall(name, json.dumps(arguments)) for name, arguments in calls)
    return {"text": text, "tools": tuple(TOOLS[name] for name in draw.some(names, len(names))), "calls": made}


def _one(ask: Callable[[Draw], _Request]) -> Callable[[Draw], dict[str, Any]]:
    def template(draw: Draw) -> dict[str, Any]:
        text, name, arguments = ask(draw)
        return _item(draw, text, [(name, arguments)], draw.whole(0, 3))

    template.__name__ = ask.__name__
    return template


def _two(draw: Draw) -> dict[str, Any]:
    (text, name, arguments), (more, other, further) = (
        ask(draw) for ask in draw.some((_light, _timer, _music, _parcel, _list), 2)
    )
    return _item(draw, f"{text} {more}", [(name, arguments), (other, further)], draw.whole(0, 1))


def _twice(draw: Draw) -> dict[str, Any]:
    first, second = draw.some(_CITIES, 2)
    days = draw.whole(2, 7)
    calls = [("get_weather", {"city": city, "days": days}) for city in (first, second)]
    return _item(draw, f"Get the weather forecasts of {first} and of {second}, for {days} days each.", calls, 1)


def _none(draw: Draw) -> dict[str, Any]:
    return _item(draw, draw.one(_NO_TOOL), [], draw.whole(1, 3))


REQUESTS = (
    *map(_one, (_weather, _alarm, _currency, _message, _event)),
    _none,
    *map(_one, (_search, _table, _light, _list, _translation)),
    _two,
    *map(_one, (_music, _parcel, _route, _timer)),
    _twice,
    _none,
)
