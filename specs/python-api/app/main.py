"""The service: `GET /statistics?of=1,2,3`."""

from fastapi import FastAPI, HTTPException, Response
import orjson

from app.statistics import summary

app = FastAPI(title="python-api", docs_url=None, redoc_url=None)


def answer(value: object) -> Response:
    """orjson writes numpy's numbers as they are."""
    return Response(orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY), media_type="application/json")


@app.get("/")
def ready() -> Response:
    return answer({"ready": True})


@app.get("/statistics")
def statistics(of: str) -> Response:
    try:
        numbers = [float(text) for text in of.split(",")]
    except ValueError as error:
        raise HTTPException(422, "`of` is a list of numbers, with commas between them") from error
    return answer(summary(numbers))
