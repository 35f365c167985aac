# Brings an unpacked wheel to its places: wheel.py TREE OUT PROJECT X.Y
import base64, compileall, csv, hashlib, os, py_compile, re, shutil, stat, sys

tree, out, project, python = sys.argv[1:]


def fail(message, help):
    sys.exit(f"the wheel of {project} cannot be installed: {message}\nhelp: {help}")


ANEW = "lock another version, and tell the project's maintainers"


def normal(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def read(path):
    try:
        with open(os.path.join(tree, path), encoding="utf-8", newline="") as file:
            return file.read()
    except (OSError, UnicodeDecodeError) as error:
        fail(f"`{path}` cannot be read: {error}", ANEW)


top = sorted(os.listdir(tree))
infos = [name for name in top if name.endswith(".dist-info")]
if len(infos) != 1:
    fail(f"it has {len(infos)} directories `*.dist-info`, not one", ANEW)
info = infos[0]
stem = info[: -len(".dist-info")]
if normal(stem.split("-")[0]) != project:
    fail(f"it is of the project `{stem}`", "see that the index serves what was locked")
headers = dict(line.split(":", 1) for line in read(f"{info}/WHEEL").splitlines() if ":" in line)
version = headers.get("Wheel-Version", "").strip()
if not re.fullmatch(r"1\.\d+", version):
    fail(f"its format is version `{version}`", "use a newer layerize")

# Every file is vouched for, but for the record itself and its signatures (PEP 427).
unsigned = {f"{info}/RECORD", f"{info}/RECORD.jws", f"{info}/RECORD.p7s"}
files = set()
for directory, names, contents in os.walk(tree):
    for name in names + contents:
        path = os.path.join(directory, name)
        shown = os.path.relpath(path, tree)
        mode = os.lstat(path).st_mode
        if stat.S_ISREG(mode):
            files.add(shown)
        elif not stat.S_ISDIR(mode):
            fail(f"`{shown}` is neither a file nor a directory", ANEW)
vouched = set()
for row in csv.reader(read(f"{info}/RECORD").splitlines()):
    if not row:
        continue
    path, expected = os.path.normpath(row[0]), row[1] if len(row) > 1 else ""
    if path in unsigned:
        continue
    if path not in files:
        fail(f"its RECORD lists `{row[0]}`, which it does not hold", ANEW)
    algorithm, _, digest = expected.partition("=")
    if algorithm not in ("sha256", "sha384", "sha512"):
        fail(f"its RECORD has no usable hash of `{path}`", ANEW)
    with open(os.path.join(tree, path), "rb") as file:
        found = hashlib.new(algorithm, file.read()).digest()
    if base64.urlsafe_b64encode(found).rstrip(b"=").decode() != digest.rstrip("="):
        fail(f"`{path}` is not what its RECORD says", ANEW)
    vouched.add(path)
for path in sorted(files - vouched - unsigned):
    fail(f"its RECORD does not list `{path}`", ANEW)

site = os.path.join(out, "lib", f"python{python}", "site-packages")
data = f"{stem}.data"
places = {
    "purelib": site,
    "platlib": site,
    "scripts": os.path.join(out, "bin"),
    "data": out,
    "headers": os.path.join(out, "include", "site", f"python{python}", project),
}
os.makedirs(site)
for path in sorted(files):
    parts = path.split("/")
    if parts[0] == data:
        if len(parts) < 3 or parts[1] not in places:
            fail(f"`{path}` has no place in an environment", ANEW)
        target = os.path.join(places[parts[1]], *parts[2:])
    else:
        target = os.path.join(site, path)
    if os.path.lexists(target):
        fail(f"two of its files are to be at `{os.path.relpath(target, out)}`", ANEW)
    os.makedirs(os.path.dirname(target), exist_ok=True)
    shutil.copyfile(os.path.join(tree, path), target)
    is_script = parts[0] == data and parts[1] == "scripts"
    executable = is_script or os.stat(os.path.join(tree, path)).st_mode & 0o111
    os.chmod(target, 0o755 if executable else 0o644)

# The names in byte code are relative: Python puts the file's own place in when it is imported. What does not compile (a
# template, code for another version) is left to whoever imports it.
compileall.compile_dir(
    site,
    maxlevels=64,
    quiet=2,
    stripdir=out,
    invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
)
