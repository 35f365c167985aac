# Builds the wheel of a source distribution (PEP 517): sdist.py OUT PROJECT, in the source's directory
import importlib, importlib.metadata, os, re, shutil, sys, tomllib, zipfile

out, project = sys.argv[1:]
ANEW = "lock another version, and tell the project's maintainers"


def fail(message, help):
    sys.exit(f"{project} cannot be built: {message}\nhelp: {help}")


def declared(names):
    return f"""write what it is built with: python = {{ build = {{ "{project}" = [{", ".join(f'"{name}"' for name in names)}] }} }}"""


system = {}
if os.path.exists("pyproject.toml"):
    with open("pyproject.toml", "rb") as file:
        try:
            system = tomllib.load(file).get("build-system", {})
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            fail(f"its `pyproject.toml` cannot be read: {error}", ANEW)
elif not os.path.exists("setup.py"):
    fail("it has neither `pyproject.toml` nor `setup.py`", ANEW)


def missing(requirements):
    """What is required and not there. What holds under a condition only is left to the back end to miss."""
    for requirement in requirements:
        name = re.match(r"\s*([A-Za-z0-9][A-Za-z0-9._-]*)", requirement)
        if not name or ";" in requirement:
            continue
        try:
            importlib.metadata.distribution(name[1])
        except importlib.metadata.PackageNotFoundError:
            yield re.sub(r"[-_.]+", "-", name[1]).lower()


def check(requirements):
    names = list(dict.fromkeys(missing(requirements)))
    if names:
        fail(f"it is built with `{'`, `'.join(names)}`, which is not there", declared([*names, "…"]))


check(system.get("requires", ["setuptools"]))
module, _, attribute = system.get("build-backend", "setuptools.build_meta:__legacy__").partition(":")
sys.path[:0] = [os.path.abspath(path) for path in system.get("backend-path", [])]
try:
    backend = importlib.import_module(module)
except ImportError as error:
    fail(f"its back end `{module}` cannot be imported: {error}", declared([module.split(".")[0].replace("_", "-"), "…"]))
for part in filter(None, attribute.split(".")):
    backend = getattr(backend, part)
# Back ends read it as the command of setup.py.
sys.argv = ["setup.py"]
if hasattr(backend, "get_requires_for_build_wheel"):
    check(backend.get_requires_for_build_wheel())
place = "/build/wheel"
os.mkdir(place)
name = backend.build_wheel(place)
if re.sub(r"[-_.]+", "-", name.split("-")[0]).lower() != project:
    fail(f"it is `{name}`", "see that the index serves what was locked")

# As it would be unpacked had it been published: what is in a zip has times, and modes by the umask.
os.mkdir(out)
with zipfile.ZipFile(os.path.join(place, name)) as wheel:
    for entry in wheel.infolist():
        parts = entry.filename.split("/")
        if entry.is_dir():
            continue
        if entry.filename.startswith("/") or ".." in parts:
            fail(f"`{entry.filename}` leads out of its wheel", ANEW)
        target = os.path.join(out, *parts)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with wheel.open(entry) as source, open(target, "xb") as file:
            shutil.copyfileobj(source, file)
        os.chmod(target, 0o755 if entry.external_attr >> 16 & 0o111 else 0o644)
