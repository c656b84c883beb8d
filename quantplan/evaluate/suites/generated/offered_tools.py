"""The tools that generated requests offer."""

import json
from collections.abc import Mapping
from typing import Any

from quantplan.evaluate.suites.tool_calls import Tool

ROOMS = ("kitchen", "bedroom", "office", "hall")
CURRENCIES = ("EUR", "USD", "GBP", "JPY", "CHF", "SEK")
LANGUAGES = ("french", "german", "spanish", "polish")


def _text(description: str, **more: Any) -> dict[str, Any]:
    return {"type": "string", "description": description} | more


def _whole(description: str, low: int, high: int, **more: Any) -> dict[str, Any]:
    return {"type": "integer", "description": description, "minimum": low, "maximum": high} | more


def _flag(description: str) -> dict[str, Any]:
    return {"type": "boolean", "description": description, "default": False}


def _object(properties: Mapping[str, Any], *required: str) -> dict[str, Any]:
    return {"type": "object", "properties": dict(properties), "required": list(required)}


_DATE, _TIME = _text("Date as YYYY-MM-DD"), _text("Time as HH:MM, 24 hours")
_ADDRESS = _object({"street": _text("Street and number"), "city": _text("City")}, "street", "city")
_SCHEMAS: dict[str, tuple[str, dict[str, Any]]] = {
    "get_weather": (
        "Get the weather forecast of a city.",
        _object(
            {
                "city": _text("Name of the city"),
                "days": _whole("Days of the forecast", 1, 7, default=1),
                "unit": _text("Unit of temperatures", enum=["celsius", "fahrenheit"], default="celsius"),
            },
            "city",
        ),
    ),
    "set_alarm": (
        "Set an alarm for a time of the day.",
        _object({"time": _TIME, "label": _text("Label of the alarm", default="")}, "time"),
    ),
    "start_timer": (
        "Start a timer that runs for some minutes.",
        _object({"minutes": _whole("Minutes", 1, 600), "label": _text("Label of the timer", default="")}, "minutes"),
    ),
    "convert_currency": (
        "Convert an amount of money from one currency to another.",
        _object(
            {
                "amount": {"type": "number", "description": "Amount of money", "minimum": 0},
                "source": _text("Currency code to convert from", enum=list(CURRENCIES)),
                "target": _text("Currency code to convert to", enum=list(CURRENCIES)),
            },
            *("amount", "source", "target"),
        ),
    ),
    "send_message": (
        "Send a text message to a person.",
        _object(
            {"to": _text("Name of the person"), "text": _text("The message"), "urgent": _flag("Mark it as urgent")},
            "to",
            "text",
        ),
    ),
    "create_event": (
        "Put an event into the calendar.",
        _object(
            {
                "title": _text("Title of the event"),
                "date": _DATE,
                "time": _TIME,
                "guests": {
                    "type": "array",
                    "items": {"type": "string"},
                    "description": "Names of guests",
                    "default": [],
                },
            },
            *("title", "date", "time"),
        ),
    ),
    "search_products": (
        "Search the products of a shop.",
        _object(
            {
                "query": _text("What to search for"),
                "max_price": {"type": "number", "description": "Highest price in euros"},
                "in_stock": _flag("Only products in stock"),
                "sort": _text("Order of the results", enum=["relevance", "price", "rating"], default="relevance"),
            },
            "query",
        ),
    ),
    "book_table": (
        "Book a table in a restaurant.",
        _object(
            {
                "restaurant": _text("Name of the restaurant"),
                "guests": _whole("Number of guests", 1, 20),
                "date": _DATE,
                "time": _TIME,
            },
            *("restaurant", "guests", "date", "time"),
        ),
    ),
    "set_light": (
        "Switch the light of a room on or off.",
        _object(
            {
                "room": _text("The room", enum=list(ROOMS)),
                "on": {"type": "boolean", "description": "Whether the light is on"},
                "brightness": _whole("Brightness in percent", 1, 100, default=100),
            },
            *("room", "on"),
        ),
    ),
    "add_to_list": (
        "Add items to a list.",
        _object(
            {
                "list": _text("The list", enum=["shopping", "todo"]),
                "items": {"type": "array", "items": {"type": "string"}, "description": "Items to add", "minItems": 1},
            },
            *("list", "items"),
        ),
    ),
    "translate": (
        "Translate a text.",
        _object(
            {"text": _text("The text"), "language": _text("Language to translate to", enum=list(LANGUAGES))},
            "text",
            "language",
        ),
    ),
    "play_music": (
        "Play music of an artist.",
        _object({"artist": _text("Name of the artist"), "shuffle": _flag("In a random order")}, "artist"),
    ),
    "track_parcel": ("Find out where a parcel is.", _object({"number": _text("Number of the parcel")}, "number")),
    "get_route": (
        "Get the route from one address to another.",
        _object(
            {
                "start": _ADDRESS,
                "end": _ADDRESS,
                "mode": _text("How to travel", enum=["car", "bike", "foot"], default="car"),
            },
            *("start", "end"),
        ),
    ),
}
TOOLS = {name: Tool(name, description, json.dumps(parameters)) for name, (description, parameters) in _SCHEMAS.items()}
