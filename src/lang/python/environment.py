# Makes an environment of installed wheels and the source: environment.py PLAN OUT, in the source's directory
import compileall, filecmp, json, os, py_compile, re, shutil, stat, sys

with open(sys.argv[1], encoding="utf-8") as file:
    plan = json.load(file)
out = sys.argv[2]
version = plan["python"]
venv = os.path.join(out, "venv")
programs = os.path.join(venv, "bin")
site = os.path.join(venv, "lib", f"python{version}", "site-packages")
python = os.path.join(programs, "python3")

# Directories that are the environment's own, however few wheels have them.
REAL = {"bin", "lib", f"lib/python{version}", f"lib/python{version}/site-packages"}


def fail(message, help):
    sys.exit(f"{message}\nhelp: {help}")


class Wheel:
    def __init__(self, entry):
        self.name = f"{entry['name']} {entry['version']}"
        self.root = os.environ[entry["variable"]]


def write(path, text, mode=0o644):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    os.chmod(path, mode)


def same(one, other):
    return os.path.isfile(one) and os.path.isfile(other) and filecmp.cmp(one, other, shallow=False)


def join(wheels, inner):
    """Links what one wheel has, and makes a directory of what several have."""
    owners = {}
    for wheel in wheels:
        place = os.path.join(wheel.root, inner)
        for name in os.listdir(place):
            owners.setdefault(name, []).append(wheel)
    # Byte code is last, so that of two modules the sources are named.
    for name in sorted(owners, key=lambda name: (name == "__pycache__", name)):
        having = owners[name]
        path = f"{inner}/{name}" if inner else name
        places = [os.path.join(wheel.root, path) for wheel in having]
        target = os.path.join(venv, path)
        directories = [os.path.isdir(place) for place in places]
        if all(directories) and (len(having) > 1 or path in REAL):
            os.makedirs(target, exist_ok=True)
            join(having, path)
            continue
        for wheel, place in zip(having[1:], places[1:]):
            if not same(places[0], place):
                fail(
                    f"the wheels of {having[0].name} and {wheel.name} both have `{path}`, each another",
                    "leave one of them out of the project's dependencies",
                )
        if inner == "bin" and rewritten(places[0], target):
            continue
        os.symlink(places[0], target)


def rewritten(place, target):
    """A script that says `#!python` means the environment's (PEP 427)."""
    with open(place, "rb") as file:
        content = file.read()
    first, newline, rest = content.partition(b"\n")
    if not re.match(rb"#!pythonw?\b", first):
        return False
    with open(target, "wb") as file:
        file.write(b"#!" + os.fsencode(python) + newline + rest)
    os.chmod(target, 0o755)
    return True


NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]*")
OBJECT = re.compile(r"([^\W\d]\w*(?:\.[^\W\d]\w*)*)\s*:\s*([^\W\d]\w*(?:\.[^\W\d]\w*)*)\s*(?:\[.*\])?")


def command(owner, name, value):
    match = OBJECT.fullmatch(value.strip())
    if not NAME.fullmatch(name) or not match:
        fail(
            f"{owner} has the command `{name} = {value}`, which is none",
            "leave it out, or lock another version",
        )
    module, attribute = match.groups()
    first = attribute.split(".")[0]
    return (
        f"#!{python}\nimport sys\nfrom {module} import {first}\n"
        f'if __name__ == "__main__":\n    sys.exit({attribute}())\n'
    )


def points(text):
    """The commands that `entry_points.txt` announces."""
    group = None
    for line in text.splitlines():
        line = line.strip()
        if not line or line[0] in "#;":
            continue
        if line[0] == "[" and line[-1] == "]":
            group = line[1:-1].strip()
        elif group in ("console_scripts", "gui_scripts"):
            name, _, value = line.partition("=")
            yield name.strip(), value.strip()


wheels = [Wheel(entry) for entry in plan["wheels"]]
os.makedirs(site)
os.makedirs(programs)
join(wheels, "")
os.symlink(f"/usr/bin/python{version}", python)
os.symlink("python3", os.path.join(programs, "python"))
system = "true" if plan.get("system") else "false"
write(os.path.join(venv, "pyvenv.cfg"), f"home = /usr/bin\ninclude-system-site-packages = {system}\nversion = {version}\n")

commands = {}
for wheel in wheels:
    base = os.path.join(wheel.root, "lib", f"python{version}", "site-packages")
    for name in sorted(os.listdir(base)):
        announced = os.path.join(base, name, "entry_points.txt")
        if not name.endswith(".dist-info") or not os.path.isfile(announced):
            continue
        with open(announced, encoding="utf-8") as file:
            for script, value in points(file.read()):
                text = command(f"the wheel of {wheel.name}", script, value)
                owner, known = commands.setdefault(script, (wheel.name, text))
                if known != text:
                    fail(
                        f"{owner} and {wheel.name} both have the command `{script}`",
                        "leave one of them out of the project's dependencies",
                    )

# The source is beside the wheels, and found after them as the path of `site` has it.
HIDDEN = {".git", ".hg", ".venv", "venv", "node_modules", ".tox", ".nox", ".mypy_cache", ".ruff_cache", ".pytest_cache"}
app = os.path.join(venv, "app")


def left_out(directory, names):
    at_top = os.path.normpath(directory) == "."
    is_lock = lambda name: os.path.normpath(os.path.join(directory, name)) == os.path.normpath(plan["lock"])
    return [name for name in names if name == "__pycache__" or (at_top and name in HIDDEN) or is_lock(name)]


shutil.copytree(".", app, symlinks=True, ignore=left_out)
paths = []
for project in plan["projects"]:
    for path in project["paths"]:
        path = os.path.normpath(os.path.join(app, path))
        if path not in paths:
            paths.append(path)
    for script, value in project["commands"].items():
        commands[script] = (project["name"], command(f"the project {project['name']}", script, value))
    if not project["name"]:
        continue
    name = re.sub(r"[-_.]+", "_", project["name"])
    info = os.path.join(site, f"{name}-{project['version']}.dist-info")
    if os.path.lexists(info):
        fail(f"a wheel has the name of the project, `{project['name']}`", "give the project another name")
    write(
        os.path.join(info, "METADATA"),
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n",
    )
    write(os.path.join(info, "INSTALLER"), "layerize\n")
    groups = dict(project["entry_points"])
    if project["commands"]:
        groups["console_scripts"] = project["commands"]
    lines = []
    for group in sorted(groups):
        lines.append(f"[{group}]")
        lines.extend(f"{point} = {value}" for point, value in sorted(groups[group].items()))
    write(os.path.join(info, "entry_points.txt"), "".join(line + "\n" for line in lines))
write(os.path.join(site, "layerize-own.pth"), "".join(path + "\n" for path in paths))
for path in paths:
    compileall.compile_dir(
        path,
        maxlevels=64,
        quiet=1,
        stripdir=out,
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
    )

for script in sorted(commands):
    path = os.path.join(programs, script)
    if os.path.lexists(path):
        os.unlink(path)
    write(path, commands[script][1], 0o755)

# What is joined under `/`: the commands without the interpreter's own names, and one that runs modules. That is a script,
# for a link would make Python look for the environment beside the link.
os.makedirs(os.path.join(out, "bin"))
for name in sorted(os.listdir(programs)):
    if not re.fullmatch(r"python[0-9.]*", name):
        os.symlink(os.path.join("..", "venv", "bin", name), os.path.join(out, "bin", name))
write(
    os.path.join(out, "bin", "python"),
    f"#!{python} -IS\nimport os, sys\npath = {python!r}\nos.execv(path, [path, *sys.argv[1:]])\n",
    0o755,
)
