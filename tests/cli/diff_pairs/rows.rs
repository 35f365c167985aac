//! The rows: scripts that make two images, and the classes in which these differ.

use super::*;

pub(super) const GNU_TAR: &[Row] = &[
    row(
        &[3],
        &["mtime"],
        Made::Tars,
        "gtar -cf a.tar a b; gtar --mtime=@2 -cf b.tar a b",
    ),
    row(
        &[6],
        &["mtime"],
        Made::Tars,
        "gtar --mtime=@0 -cf a.tar a; gtar --mtime=@1 -cf b.tar a",
    ),
    row(
        &[7],
        &["order"],
        Made::Tars,
        "gtar -cf a.tar a b d d/f; gtar -cf b.tar a d d/f b",
    ),
    row(
        &[8],
        &["owner"],
        Made::Tars,
        "gtar -cf a.tar a; gtar --owner=1000 -cf b.tar a",
    ),
    row(
        &[8],
        &["owner"],
        Made::Tars,
        "gtar -cf a.tar a; tar -C t --format=ustar --owner=root:0 --group=root:0 --mtime=@1 -b1 -cf b.tar a",
    ),
    row(
        &[9, 37],
        &["mode"],
        Made::Tars,
        "gtar -cf a.tar a; chmod 600 t/a; gtar -cf b.tar a",
    ),
    row(
        &[9],
        &["mode"],
        Made::Tars,
        "gtar -cf a.tar a; gtar --mode=u+s -cf b.tar a",
    ),
    row(
        &[10],
        &["hard-link"],
        Made::Tars,
        "ln t/a t/c; gtar -cf a.tar a c; gtar --hard-dereference -cf b.tar a c",
    ),
    row(
        &[11],
        &["tar-sparse"],
        Made::Tars,
        "truncate -s 1M t/s; printf x >> t/s; touch -d @1 t/s
         gtar --format=gnu -cf a.tar s; gtar --format=gnu -S -cf b.tar s",
    ),
    row(
        &[13],
        &["tar-format"],
        Made::Tars,
        "gtar -cf a.tar a b; gtar --format=gnu -cf b.tar a b",
    ),
    row(
        &[13],
        &["tar-format"],
        Made::Tars,
        "gtar -cf a.tar a b; gtar --format=v7 -cf b.tar a b",
    ),
    row(
        &[13],
        &["tar-path"],
        Made::Tars,
        "gtar -cf a.tar a b; gtar -cf b.tar ./a ./b",
    ),
    row(
        &[5],
        &["tar-pax"],
        Made::Tars,
        "none=--pax-option=delete=atime,delete=ctime; gtar --format=posix $none -cf a.tar a
         gtar --format=posix --pax-option=delete=ctime -cf b.tar a",
    ),
    row(
        &[14],
        &["tar-pax-header"],
        Made::Tars,
        "o=--pax-option=delete=atime,delete=ctime,exthdr.name=%d/PaxHeaders.%p/%f; gtar --format=posix --mtime=@1.5 $o -cf a.tar a; gtar --format=posix --mtime=@1.5 $o -cf b.tar a",
    ),
    row(
        &[15],
        &["tar-padding"],
        Made::Tars,
        "gtar -cf a.tar a; gtar -b20 -cf b.tar a",
    ),
    row(
        &[18],
        &["tar-duplicate"],
        Made::Tars,
        "gtar -cf a.tar a b; cp a.tar b.tar; gtar -rf b.tar b",
    ),
    row(
        &[4],
        &["implied-directory"],
        Made::Tars,
        "gtar -cf a.tar d d/f; gtar -cf b.tar d/f",
    ),
    row(
        &[16],
        &["renamed"],
        Made::Tars,
        r"cp -p t/a t/$'caf\xc3\xa9'; gtar -cf a.tar $'caf\xc3\xa9'; mv t/$'caf\xc3\xa9' t/$'cafe\xcc\x81'; gtar -cf b.tar $'cafe\xcc\x81'",
    ),
    row(&[36], &["added"], Made::Tars, "gtar -cf a.tar a; gtar -cf b.tar a b"),
    row(&[36], &["removed"], Made::Tars, "gtar -cf a.tar a b; gtar -cf b.tar a"),
    row(
        &[43],
        &["content"],
        Made::Tars,
        "gtar -cf a.tar a; printf 'one\nTWO\n' > t/a; gtar -cf b.tar a",
    ),
    row(
        &[43],
        &["link"],
        Made::Tars,
        "ln -s a t/l; gtar -cf a.tar l; ln -sf b t/l; gtar -cf b.tar l",
    ),
    row(
        &[43],
        &["type"],
        Made::Tars,
        "gtar -cf a.tar a; ln -sf b t/a; gtar --mode=0644 -cf b.tar a",
    ),
];

pub(super) const PYTHON_ROWS: &[Row] = &[
    row(
        &[12],
        &["xattr"],
        Made::Tars,
        "for n, v in ('a', '1'), ('b', '2'): tar(n + '.tar', P, [('f', {'pax_headers': {'SCHILY.xattr.user.k': v}})])",
    ),
    row(
        &[10],
        &["hard-link"],
        Made::Tars,
        "for n in 'a', 'b': tar(n + '.tar', U, [('a', {'data': b'x'}), ('b', {'type': tarfile.LNKTYPE, 'linkname': 'a'}), ('c', {'type': tarfile.LNKTYPE, 'linkname': n})])",
    ),
    row(
        &[13],
        &["tar-format", "tar-long-name", "tar-pax"],
        Made::Tars,
        "for n, f in ('a', G), ('b', P): tar(n + '.tar', f, [('n' * 120, {'data': b'x'})])",
    ),
    row(
        &[9],
        &["tar-header"],
        Made::Tars,
        "raw = lambda m: b'%07o\\0' % m
for n, m in ('a', 0o644), ('b', 0o100644):
    tar(n + '.tar', U, [('f', {'data': b'x'})])
    t = bytearray(open(n + '.tar', 'rb').read()); t[100:108] = raw(m); t[148:156] = b' ' * 8
    t[148:156] = b'%06o\\0 ' % sum(t[:512]); open(n + '.tar', 'wb').write(t)",
    ),
    row(
        &[43],
        &["device"],
        Made::Tars,
        "for n in 1, 2: tar('ab'[n - 1] + '.tar', U, [('null', {'type': tarfile.CHRTYPE, 'devmajor': 1, 'devminor': n})])",
    ),
    row(
        &[13],
        &["tar-bytes"],
        Made::Tars,
        "tar('a.tar', U, [('f', {'data': b'x'})]); t = bytearray(open('a.tar', 'rb').read()); t[600] = 7; open('b.tar', 'wb').write(t)",
    ),
    row(
        &[43],
        &["store-path", "store-hash"],
        Made::Tars,
        "for n in 'a', 'b':
    p = 'layerize/store/' + n * 32 + '-hello-2.10'
    tar(n + '.tar', U, [(p, {'type': tarfile.DIRTYPE}), (p + '/run', {'data': ('#!/' + p + '/sh\\n').encode()})])",
    ),
    row(
        &[36],
        &["package"],
        Made::Tars,
        "for n, v in ('a', '9'), ('b', '10'):
    p = 'nix/store/' + n * 32 + '-libc6-2.36-' + v
    tar(n + '.tar', U, [(p, {'type': tarfile.DIRTYPE}), (p + '/lib', {'data': b'same'})])",
    ),
    row(&[27], &["json"], Made::Configs, "configs(json.dumps(BASE), json.dumps(BASE, indent=1))"),
    row(&[27, 29], &["json"], Made::Configs, "configs(json.dumps(BASE), json.dumps(BASE, sort_keys=True))"),
    row(
        &[27],
        &["json"],
        Made::Configs,
        "configs(json.dumps(BASE), json.dumps(BASE).replace('<', '\\\\u003c').replace('&', '\\\\u0026'))",
    ),
    row(&[27], &["empty-field"], Made::Configs, "configs(json.dumps(BASE), changed(variant=None))"),
    row(&[28], &["env-order"], Made::Configs, "configs(json.dumps(BASE), changed(config={**BASE['config'], 'Env': ['B=2', 'A=1']}))"),
    row(&[1], &["created"], Made::Configs, "configs(json.dumps(BASE), changed(created='2021-01-01T00:00:00Z'))"),
    row(
        &[2],
        &["created"],
        Made::Configs,
        "configs(json.dumps(BASE), changed(history=[{'created': '1970-01-01T00:00:00Z', 'comment': 'c'}]))",
    ),
    row(&[30], &["builder"], Made::Configs, "configs(json.dumps(BASE), changed(docker_version='20.10', container='0123'))"),
    row(&[31], &["platform"], Made::Configs, "configs(json.dumps(BASE), changed(variant='v8'))"),
    row(
        &[32],
        &["index-order"],
        Made::Indexes,
        "e = lambda a: {'mediaType': 'IMAGE', 'digest': 'DIGEST', 'size': 'SIZE', 'platform': {'os': 'linux', 'architecture': a}}
i = lambda *l: json.dumps({'schemaVersion': 2, 'manifests': list(l)}); configs(i(e('amd64'), e('arm64')), i(e('arm64'), e('amd64')))",
    ),
    row(
        &[33, 34, 35],
        &["attestation"],
        Made::Indexes,
        "e = {'mediaType': 'IMAGE', 'digest': 'DIGEST', 'size': 'SIZE', 'platform': {'os': 'linux', 'architecture': 'amd64'}}
s = lambda d: {'mediaType': 'IMAGE', 'digest': 'sha256:' + d * 64, 'size': 9, 'platform': {'os': 'unknown', 'architecture': 'unknown'}}
i = lambda *l: json.dumps({'schemaVersion': 2, 'manifests': list(l)}); configs(i(e, s('1')), i(e, s('2')))",
    ),
    row(
        &[33],
        &["index-entry"],
        Made::Indexes,
        "e = lambda a: {'mediaType': 'IMAGE', 'digest': 'DIGEST', 'size': 'SIZE', 'platform': {'os': 'linux', 'architecture': a}}
i = lambda *l: json.dumps({'schemaVersion': 2, 'manifests': list(l)}); configs(i(e('amd64')), i(e('amd64'), e('arm64')))",
    ),
    row(
        &[39],
        &["annotation"],
        Made::Indexes,
        "e = {'mediaType': 'IMAGE', 'digest': 'DIGEST', 'size': 'SIZE'}
i = lambda v: json.dumps({'schemaVersion': 2, 'manifests': [e], 'annotations': {'k': v}}); configs(i('1'), i('2'))",
    ),
];

pub(super) const COMPRESSORS: &[Row] = &[
    row(
        &[20],
        &["gzip-header"],
        Made::Blobs,
        "gtar -cf x a b d; gzip -nc x > a.blob; gzip -Nc x > b.blob",
    ),
    row(
        &[21],
        &["gzip-data"],
        Made::Blobs,
        "gtar -cf x a b d d/f; gzip -1nc x > a.blob; gzip -9nc x > b.blob",
    ),
    row(
        &[23],
        &["gzip-members"],
        Made::Blobs,
        "gtar -cf x a b d; gzip -nc x > a.blob; (head -c 1000 x | gzip -nc; tail -c +1001 x | gzip -nc) > b.blob",
    ),
    row(
        &[22],
        &["zstd-frame"],
        Made::Blobs,
        "gtar -cf x a b d; zstd -qc x > a.blob; zstd --no-check -qc x > b.blob",
    ),
    row(
        &[22],
        &["zstd-frame"],
        Made::Blobs,
        "gtar -cf x a b d; zstd -qc x > a.blob; zstd -qc < x > b.blob",
    ),
    row(
        &[22],
        &["zstd-data"],
        Made::Blobs,
        "seq 30000 > t/a; gtar -cf x a b d; zstd -q1c x > a.blob; zstd -q3c x > b.blob",
    ),
    row(
        &[42],
        &["compression"],
        Made::Blobs,
        "gtar -cf x a b; gzip -nc x > a.blob; zstd -qc x > b.blob",
    ),
];

pub(super) const UMOCI: &[Row] = &[
    row(
        &[1],
        &["created"],
        Made::Images("oci:u:a", "oci:u:b"),
        "umoci init --layout u; umoci new --image u:n; for n in a b; do y=202$(($(printf %d \"'$n\") - 96))
         umoci config --image u:n --tag $n --created $y-01-01T00:00:00Z --no-history; done",
    ),
    row(
        &[31],
        &["platform"],
        Made::Images("oci:u:a", "oci:u:b"),
        "umoci init --layout u; umoci new --image u:n; umoci config --image u:n --tag a --created 2020-01-01T00:00:00Z --no-history --architecture amd64
         umoci config --image u:n --tag b --created 2020-01-01T00:00:00Z --no-history --architecture arm64",
    ),
    row(
        &[2],
        &["history"],
        Made::Images("oci:u:a", "oci:u:b"),
        "umoci init --layout u; umoci new --image u:n; for n in a b; do
         umoci config --image u:n --tag $n --created 2020-01-01T00:00:00Z --history.created 2020-01-01T00:00:00Z --history.comment $n; done",
    ),
    row(
        &[30],
        &["builder"],
        Made::Images("oci:u:a", "oci:u:b"),
        "umoci init --layout u; umoci new --image u:n; for n in a b; do
         umoci config --image u:n --tag $n --created 2020-01-01T00:00:00Z --no-history --author $n; done",
    ),
    row(
        &[3],
        &["mtime"],
        Made::Images("oci:u:a", "oci:u:b"),
        "umoci init --layout u; umoci new --image u:n; for n in a b; do
         umoci unpack --image u:n w$n; cp -p t/a w$n/rootfs/f; [ $n = a ] || touch -d @2 w$n/rootfs/f; touch -d @1 w$n/rootfs
         umoci repack --image u:$n --history.created 2020-01-01T00:00:00Z w$n
         umoci config --image u:$n --created 2020-01-01T00:00:00Z --no-history; done",
    ),
];

pub(super) const BUILDAH: &[Row] = &[
    row(
        &[28],
        &["env-order"],
        Made::Images("oci:a", "oci:b"),
        "c=$(B from scratch); B add -q $c t/a /f; B config --env A=1 --env B=2 $c; B commit -q --timestamp 0 $c oci:a:x
         c=$(B from scratch); B add -q $c t/a /f; B config --env B=2 --env A=1 $c; B commit -q --timestamp 0 $c oci:b:x",
    ),
    row(
        &[1],
        &["created"],
        Made::Images("oci:a", "oci:b"),
        "c=$(B from scratch); B add -q $c t/a /f; B commit -q $c oci:a:x; B commit -q $c oci:b:x",
    ),
    row(
        &[1, 3],
        &["created", "mtime"],
        Made::Images("oci:a", "oci:b"),
        "c=$(B from scratch); B add -q $c t/a /f; B commit -q --timestamp 0 $c oci:a:x; B commit -q --timestamp 5 $c oci:b:x",
    ),
    row(
        &[29],
        &["label"],
        Made::Images("oci:a", "oci:b"),
        "c=$(B from scratch); B add -q $c t/a /f; B config --label k=1 $c; B commit -q --timestamp 0 $c oci:a:x
         B config --label k=2 $c; B commit -q --timestamp 0 $c oci:b:x",
    ),
    row(
        &[32],
        &["index-order"],
        Made::Images("oci:a", "oci:b"),
        "c=$(B from scratch); B add -q $c t/a /f; B commit -q --timestamp 0 $c oci:x:x; B config --arch arm64 $c; B commit -q --timestamp 0 $c oci:y:x
         B manifest create m; B manifest add m oci:x:x; B manifest add m oci:y:x; B manifest push --all m oci:a:x
         B manifest create n; B manifest add n oci:y:x; B manifest add n oci:x:x; B manifest push --all n oci:b:x",
    ),
    // One image against an index of it and another; buildah compresses what it pushes, and names the index's type.
    row(
        &[33],
        &["compression", "index-entry", "media-type"],
        Made::Images("oci:x", "oci:b"),
        "c=$(B from scratch); B add -q $c t/a /f; B commit -q --timestamp 0 $c oci:x:x; B config --arch arm64 $c; B commit -q --timestamp 0 $c oci:y:x
         B manifest create n; B manifest add n oci:x:x; B manifest add n oci:y:x; B manifest push --all n oci:b:x",
    ),
];

pub(super) const DOCKER: &[Row] = &[
    // The engine writes its containers' names into the config beside the times.
    row(
        &[1, 30],
        &["builder", "created"],
        Made::Images("a.tar", "b.tar"),
        r"trap 'docker rmi -f lz-a-$$ lz-b-$$ >&2' EXIT; printf 'FROM scratch\nCOPY a /f\nLABEL k=v\n' > t/Dockerfile
          for n in a b; do docker build --no-cache -q -t lz-$n-$$ t; docker save lz-$n-$$ -o $n.tar; done",
    ),
    row(
        &[25],
        &["compression"],
        Made::Images("a.tar", "b.tar"),
        r"trap 'docker rmi -f lz-c-$$:x >&2' EXIT; p=$($L store add t); $L build $p --name lz-c-$$:x -o docker-archive:a.tar
          docker load -i a.tar; docker save lz-c-$$:x -o b.tar",
    ),
];

pub(super) const DAEMON: &[Row] = &[row(
    &[25],
    &["compression"],
    Made::Images("oci:a", "docker-daemon:NAME"),
    "p=$($L store add t); $L build $p --name $NAME -o docker-archive:x.tar -o oci:a; docker load -i x.tar",
)];

pub(super) const SKOPEO: &[Row] = &[
    row(
        &[26],
        &["media-type"],
        Made::Images("oci:s:a", "oci:s:b"),
        "p=$($L store add t); $L build $p --name x -o docker-archive:x.tar
         skopeo --insecure-policy copy docker-archive:x.tar oci:s:a; skopeo --insecure-policy copy --format v2s2 oci:s:a oci:s:b",
    ),
    row(
        &[25],
        &["compression"],
        Made::Images("oci:s:a", "oci:s:b"),
        "p=$($L store add t); $L build $p --name x --compression none -o oci:o:o
         skopeo --insecure-policy copy oci:o:o oci:s:a; skopeo --insecure-policy copy --dest-compress-format zstd --dest-compress oci:o:o oci:s:b",
    ),
    Row {
        sources: &[39],
        classes: &["names"],
        made: Made::Images("oci:s:a", "oci:t2:b"),
        arguments: &["--indexes"],
        script: "p=$($L store add t); $L build $p --name x -o oci:o:o
         skopeo --insecure-policy copy oci:o:o oci:s:a; skopeo --insecure-policy copy oci:o:o oci:t2:b",
    },
];

pub(super) const OWN: &[Row] = &[
    row(
        &[40],
        &["layering"],
        Made::Images("oci:a", "oci:b"),
        "cp -a t u; echo u > u/a; p=\"$($L store add t) $($L store add u)\"; mkdir w; mv u w; p=\"$p $($L store add w)\"; set -- $p
         $L build $1 $3 --name x --max-layers 2 -o oci:a; $L build $1 $3 --name x -o oci:b",
    ),
    row(
        &[21],
        &["gzip-data"],
        Made::Images("oci:a", "oci:b"),
        "seq 9999 > t/a; p=$($L store add t); $L build $p --name x --compression gzip:1 -o oci:a; $L build $p --name x --compression gzip:9 -o oci:b",
    ),
    row(
        &[23],
        &["gzip-members"],
        Made::Images("oci:a", "oci:b"),
        "seq 999999 > t/a; p=$($L store add t); $L build $p --name x -o oci:a; $L build $p --name x --single-member -o oci:b",
    ),
    row(
        &[1],
        &["created"],
        Made::Images("oci:a", "oci:b"),
        "p=$($L store add t); SOURCE_DATE_EPOCH=5 $L build $p --name x -o oci:a; SOURCE_DATE_EPOCH=6 $L build $p --name x -o oci:b",
    ),
    row(
        &[30],
        &["env"],
        Made::Images("oci:a", "oci:b"),
        "p=$($L store add t); $L build $p --name x --env K=1 -o oci:a; $L build $p --name x --env K=2 -o oci:b",
    ),
    row(
        &[30],
        &["config"],
        Made::Images("oci:a", "oci:b"),
        "p=$($L store add t); $L build $p --name x --user 1 -o oci:a; $L build $p --name x --user 2 -o oci:b",
    ),
    Row {
        sources: &[3],
        classes: &[],
        made: Made::Tars,
        arguments: &["--ignore", "mtime,mode"],
        script: "gtar -cf a.tar a b; gtar --mtime=@2 --mode=0600 -cf b.tar a b",
    },
];
