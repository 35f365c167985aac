"""Greets whoever asks, in their own words."""

from flask import Flask

app = Flask(__name__)


@app.get("/")
def greet():
    return "Hello from Flask.\n"


@app.get("/<name>")
def greet_by_name(name):
    return f"Hello, {name}!\n"
