#!/usr/bin/python3
"""bench.py BIN [PART ...]: whole-process benchmarks of the programs in BIN beside restic, in the same run.

Parts: linux small big hist convert borg restic image wide gc (default: linux small hist). Scratch space is $BENCH_ROOT (default /var/tmp/bk-bench,
kept between runs for its data; about 20 GB for hist). Restores go to /dev/shm. Data:
  linux  two point releases of Debian's linux-source-6.1 (apt-get download), or $BENCH_LINUX1 and $BENCH_LINUX2
  small  250,000 tiny files, generated
  big    a tar of each of the linux trees, and incompressible files of the same size, generated
  hist   20 snapshots of an evolving linux tree with a disk image and a log (evolve.py), then all of "convert"
  convert  conversions of the history that hist left: to new keys, cut and compressed anew, one more snapshot, a pattern
         dropped; beside restic copy, restic rewrite and borg recreate
  borg   the archives of that history in borg's repository, which convert makes, to bk and restic, beside borg and restic
  restic  the history that hist left in restic's own repository, to bk and back, beside restic copy
  image  a disk image of 4 GiB of which 40 MiB change in scattered places, cut anew as a difference (IMAGE_MIB for a smaller one)
  wide   1,000 snapshots of 1,000,000 files, metadata alone: exported, and imported (WIDE=SNAPSHOTSxFILES for a smaller one)
  gc     a synthetic repository of $GC_CHUNKS chunks (default 10 million) that has no data (go test ./repo -run Synthetic)
Prints a Markdown table: wall and CPU seconds, and their ratios to restic's. REPS (default 3): the median counts.
$RESTIC is the restic to measure against, $RESTIC_NEW one for the conversions alone (Debian's cannot rewrite).
"""
import json, os, random, resource, shutil, statistics, subprocess, sys, time

BIN = os.path.abspath(sys.argv[1])
PARTS = sys.argv[2:] or ["linux", "small", "hist"]
ROOT = os.environ.get("BENCH_ROOT", "/var/tmp/bk-bench")
REPS = int(os.environ.get("REPS", "3"))
DATA, WORK = ROOT + "/data", ROOT + "/work"
SCRIPTS = os.path.dirname(os.path.abspath(__file__))
RESTIC = shutil.which(os.environ.get("RESTIC", "restic"))
RESTIC_NEW = shutil.which(os.environ.get("RESTIC_NEW", "")) or RESTIC
BORG = shutil.which(os.environ.get("BORG", "borg"))
env = dict(os.environ, PATH=BIN + ":" + os.environ["PATH"], BK_PASSPHRASE="bench", BK_IMPORT_PASSPHRASE="bench",
           BK_CACHE_DIR=WORK + "/bk-cache", RESTIC_PASSWORD="bench", RESTIC_FROM_PASSWORD="bench", RESTIC_CACHE_DIR=WORK + "/restic-cache", RESTIC=RESTIC or "",
           BORG_BASE_DIR=WORK + "/borg-home", BORG_PASSPHRASE="bench", BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK="yes", BORG_RELOCATED_REPO_ACCESS_IS_OK="yes")
rows = []


def run(command, cwd=None):
    """Runs a shell command; returns wall seconds, CPU seconds, peak MiB of the largest process."""
    os.sync()
    begin = time.monotonic()
    p = subprocess.Popen(["bash", "-o", "pipefail", "-c", command], cwd=cwd, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    err = p.stderr.read()
    _, status, usage = os.wait4(p.pid, 0)
    wall = time.monotonic() - begin
    if status not in (0, 3 << 8):
        sys.exit("failed (%d): %s\n%s" % (status, command, err.decode(errors="replace")))
    return wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def compare(name, ours, theirs, reps=None, reset=None, cwd=None):
    """Runs both in turn and adds a row of medians and the ratio of medians."""
    got = {0: [], 1: []}
    for _ in range(reps or REPS):
        for side, command in enumerate((ours, theirs)):
            if command and (RESTIC or "$RESTIC" not in command):
                if reset:
                    subprocess.run(["bash", "-c", reset[side]], check=True, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                got[side].append(run(command, cwd))
    a = [statistics.median(x) for x in zip(*got[0])]
    b = [statistics.median(x) for x in zip(*got[1])] if got[1] else None
    add(name, a, b)
    return b


def beside(name, command, theirs, fresh):
    """Adds a row of one more command beside what compare returned."""
    subprocess.run(["bash", "-c", fresh], check=True, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    add(name, run(command), theirs)


def add(name, a, b):
    def cell(x, unit=""):
        return "" if x is None else "%.2f%s" % (x, unit)
    if b:
        rows.append((name, cell(a[0]), cell(b[0]), cell(a[0] / b[0]), cell(a[1]), cell(b[1]), cell(a[1] / b[1]), "%.0f / %.0f" % (a[2], b[2])))
    else:
        rows.append((name, cell(a[0]), "", "", cell(a[1]), "", "", "%.0f" % a[2]))
    print(" | ".join(rows[-1]), flush=True)


def sizes(name, ours, theirs):
    a, b = tree_size(ours), tree_size(theirs) if RESTIC else 0
    rows.append((name + ", MB", "%.1f" % (a / 1e6), "%.1f" % (b / 1e6) if b else "", "%.3f" % (a / b) if b else "", "", "", "", ""))
    print(" | ".join(rows[-1]), flush=True)
    return a, b


def tree_size(path):
    total = 0
    for d, _, names in os.walk(path):
        total += sum(os.lstat(os.path.join(d, n)).st_size for n in names)
    return total


def warm(path):
    subprocess.run("find %s -type f -print0 | xargs -0 cat > /dev/null" % path, shell=True)


def linux(n):
    """The n-th linux tree."""
    given = os.environ.get("BENCH_LINUX%d" % n)
    if given:
        return os.path.realpath(given)
    out = DATA + "/linux%d" % n
    if not os.path.isdir(out):
        os.makedirs(DATA, exist_ok=True)
        listing = subprocess.run(["apt-cache", "madison", "linux-source-6.1"], capture_output=True, text=True).stdout
        versions = sorted({l.split("|")[1].strip() for l in listing.splitlines()}, key=lambda v: [int(x) for x in v.replace("-", ".").split(".") if x.isdigit()])
        if not versions:
            sys.exit("no linux-source-6.1 in the package lists: run apt-get update, or set BENCH_LINUX1 and BENCH_LINUX2")
        version = versions[0] if n == 1 else versions[min(1, len(versions) - 1)]
        subprocess.run(["apt-get", "download", "linux-source-6.1=" + version], cwd=DATA, check=True)
        os.makedirs(out + ".part", exist_ok=True)
        subprocess.run("dpkg-deb --fsys-tarfile linux-source-6.1_%s_all.deb | tar -xO ./usr/src/linux-source-6.1.tar.xz | tar -xJ --strip-components=1 -C %s && rm linux-source-6.1_*.deb" % (version, out + ".part"), shell=True, cwd=DATA, check=True)
        os.rename(out + ".part", out)
    return out


def small(n):
    """250,000 tiny files; the second version has 1 in 100 edited, some renamed."""
    out = DATA + "/small%d" % n
    if not os.path.isdir(out):
        rng = random.Random(7)
        words = [bytes(rng.choices(b"abcdefghijklmnopqrstuvwxyz", k=rng.randrange(2, 10))) for _ in range(3000)]
        for i in range(25000):
            d = "%s/small1/app%d/node_modules/p%d/lib%d" % (DATA, i % 3, i // 30, i % 10)
            os.makedirs(d, exist_ok=True)
            for k in range(10):
                with open("%s/f%d-%d.js" % (d, i, k), "wb") as f:
                    f.write(b" ".join(rng.choices(words, k=rng.randrange(5, 400))))
        subprocess.run(["cp", "-a", DATA + "/small1", DATA + "/small2"], check=True)
        for i in range(0, 25000, 10):
            p = "%s/small2/app%d/node_modules/p%d/lib%d/f%d-%d.js" % (DATA, i % 3, i // 30, i % 10, i, i % 7)
            with open(p, "ab") as f:
                f.write(b"// edited\n")
    return out


def big(n):
    """A tar of a linux tree and as much that does not compress."""
    out = DATA + "/big%d" % n
    if not os.path.isdir(out):
        os.makedirs(out)
        subprocess.run("tar -C %s -cf %s/linux.tar ." % (linux(n), out), shell=True, check=True)
        if n == 1:
            subprocess.run("head -c 1300M /dev/urandom > %s/media.bin" % out, shell=True, check=True)
        else:
            subprocess.run("(head -c 600M %s/big1/media.bin; head -c 50M /dev/urandom; tail -c +600000001 %s/big1/media.bin) > %s/media.bin" % (DATA, DATA, out), shell=True, check=True)
    return out


def fresh(name):
    """Shell commands that make an empty repository of each kind."""
    bk, re = WORK + "/bk-" + name, WORK + "/restic-" + name
    return ("rm -rf %s; BK_REPO=%s bk-init -q" % (bk, bk), "rm -rf %s; $RESTIC -q -r %s init" % (re, re)), bk, re


def suite(name, first, second):
    """The basic cycle on two versions of one tree, shown under one path."""
    src = WORK + "/src"
    os.makedirs(src, exist_ok=True)
    def show(tree):
        subprocess.run("mountpoint -q %s && umount %s; mount --bind %s %s" % (src, src, tree, src), shell=True, check=True)
        warm(src)
    reset, bk, re = fresh(name)
    ours, theirs = "bk-backup -q -r %s ." % bk, "$RESTIC -q -r %s backup ." % re
    try:
        show(first)
        compare(name + ": first backup", ours, theirs, reset=reset, cwd=src)
        sizes(name + ": size", bk, re)
        compare(name + ": nothing changed", ours, theirs, cwd=src)
        if name == "linux":
            copy, bk2, re2 = fresh("copy")
            compare(name + ": export | filter | import", "bk-export -r %s latest~%d | bk-filter -q --drop '*.cat.jpg' | bk-import -q -r %s" % (bk, REPS, bk2),
                    "$RESTIC -q -r %s copy --from-repo %s latest" % (re2, re), reset=copy)
        show(second)
        compare(name + ": next version", ours, theirs, reps=1, cwd=src)
        compare(name + ": restore to tmpfs", "bk-restore -q -r %s latest:%s -t /dev/shm/bk-bench" % (bk, src), "$RESTIC -q -r %s restore latest -t /dev/shm/bk-bench" % re,
                # In a virtual machine, whoever first writes to pages that the host took back pays for them.
                reset=("rm -rf /dev/shm/bk-bench; head -c 5G /dev/zero > /dev/shm/bk-warm; rm -f /dev/shm/bk-warm",) * 2)
        shutil.rmtree("/dev/shm/bk-bench")
        if shutil.which("bk-ls", path=BIN):
            compare(name + ": ls", "bk-ls -l -r %s latest" % bk, "$RESTIC -q -r %s ls -l latest" % re)
    finally:
        subprocess.run("mountpoint -q %s && umount %s" % (src, src), shell=True)


def hist():
    """20 snapshots, then conversions of the whole history."""
    tree = WORK + "/tree"
    shutil.rmtree(tree, ignore_errors=True)
    subprocess.run(["cp", "-a", linux(1), tree], check=True)
    subprocess.run([SCRIPTS + "/evolve.py", "init", tree], check=True)
    reset, bk, re = fresh("hist")
    for r in reset:
        subprocess.run(["bash", "-c", r], check=True, env=env)
    steps = {0: [], 1: []}
    grown = {0: [], 1: []}
    before = [0, 0]
    for n in range(20):
        if n:
            subprocess.run([SCRIPTS + "/evolve.py", "step", str(n), tree], check=True)
        warm(tree)
        for side, command in enumerate(("bk-backup -q -r %s ." % bk, "$RESTIC -q -r %s backup ." % re)):
            if side == 0 or RESTIC:
                got = run(command, tree)
                size = tree_size((bk, re)[side])
                if n:
                    steps[side].append(got)
                    grown[side].append(size - before[side])
                before[side] = size
    median = lambda side: [statistics.median(x) for x in zip(*steps[side])] if steps[side] else None
    add("hist: one more snapshot (median of 19)", median(0), median(1))
    if RESTIC:
        a, b = statistics.median(grown[0]) / 1e6, statistics.median(grown[1]) / 1e6
        rows.append(("hist: one more snapshot adds, MB", "%.1f" % a, "%.1f" % b, "%.3f" % (a / b), "", "", "", ""))
        print(" | ".join(rows[-1]))
    sizes("hist: repository", bk, re)
    if shutil.which("bk-check", path=BIN):
        compare("hist: check", "bk-check -q -r %s" % bk, "restic -q -r %s check" % re)
        compare("hist: check --read-data", "bk-check -q -r %s --read-data" % bk, "restic -q -r %s check --read-data" % re)
    if shutil.which("bk-find", path=BIN):
        compare("hist: find a name in all 20", "bk-find -r %s Kconfig" % bk, "$RESTIC -q -r %s find Kconfig" % re, reps=1)
    collected(bk, re)
    convert()


def to_restic():
    """The history in restic's own repository, to bk and back, beside restic copy."""
    re, bk, back, back2, copy = (WORK + "/" + name for name in ("restic-hist", "bk-from-restic", "restic-back", "restic-recut", "restic-copied"))
    if not os.path.exists(re):
        hist()
    ours = "BK_IMPORT_PASSPHRASE=bench bk-import -q -r restic:"
    fresh = "rm -rf %s; $RESTIC -q -r %s init --copy-chunker-params --from-repo %s" % (copy, copy, re)
    theirs = "$RESTIC -q -r %s copy --from-repo %s" % (copy, re)
    compare("hist: restic -> bk, beside restic copy", "bk-export -r restic:%s --all | bk-import -q -r %s" % (re, bk), theirs,
            reset=("rm -rf %s; bk-init -q -r %s --chunker-from restic:%s" % (bk, bk, re), fresh))
    compare("hist: bk -> restic, beside restic copy", "bk-export -r %s --all | %s%s" % (bk, ours, back), theirs,
            reset=("rm -rf %s" % back, fresh))
    compare("hist: bk -> restic, cut as restic cuts", "bk-export -r %s --all | %s%s --chunker rabin -o chunker-from=restic:%s" % (bk, ours, back2, re), theirs,
            reset=("rm -rf %s" % back2, fresh), reps=1)
    run("$RESTIC -q -r %s check --read-data" % back)
    compare("hist: prove that the way there and back is faithful", "bk-diff -q -r restic:%s --with restic:%s" % (re, back), None, reps=1)


def offers(program, verb):
    return bool(program) and subprocess.run([program, verb, "--help"], capture_output=True).returncode == 0


def convert():
    """Conversions of the 20 snapshots that hist left."""
    tree, bk, re = WORK + "/tree", WORK + "/bk-hist", WORK + "/restic-hist"
    bk2, bk3, re2, borg = WORK + "/bk-copy", WORK + "/bk-anew", WORK + "/restic-copy", WORK + "/borg-hist"
    restic = RESTIC_NEW
    theirs = restic and "%s -q -r %s copy --from-repo %s" % (restic, re2, re)
    fresh_restic = "true" if not restic else "rm -rf %s; %s -q -r %s init --copy-chunker-params --from-repo %s" % (re2, restic, re2, re)
    anew = "bk-sync -q -r %s --to %s --chunker gear:64KiB --compression fastest" % (bk, bk3)
    compare("hist: convert all 20 to new keys", "bk-export -r %s --all | bk-import -q -r %s" % (bk, bk2), theirs,
            reset=("rm -rf %s; BK_REPO=%s bk-init -q --cipher xchacha20-poly1305" % (bk2, bk2), fresh_restic))
    compare("hist: nothing new to convert", "bk-export -r %s --all --have <(bk-import -r %s --list-imported) | bk-import -q -r %s" % (bk, bk2, bk2), theirs)
    compare("hist: nothing new to sync", "bk-sync -q -r %s --to %s" % (bk, bk2), theirs)
    compare("hist: cut and compress all 20 anew, beside restic copy", anew, theirs,
            reset=("rm -rf %s; BK_REPO=%s bk-init -q" % (bk3, bk3), fresh_restic))
    compare("hist: the same by three programs in a pipe", "bk-export -r %s --all --copy | bk-filter -q | bk-import -q -r %s --chunker gear:64KiB --compression fastest" % (bk, bk3), theirs,
            reset=("rm -rf %s; BK_REPO=%s bk-init -q" % (bk3, bk3), fresh_restic))
    recompress(borg, bk, anew, bk3)
    one_more(tree, bk, re, bk2, bk3, re2, anew, theirs)


def one_more(tree, bk, re, bk2, bk3, re2, anew, theirs):
    """One more snapshot of that history, and patterns dropped from all of it."""
    restic = RESTIC_NEW
    # One more snapshot, which comes and goes.
    pristine = [(p, p + ".20") for p in (bk, bk2, bk3, re, re2)]
    for p, kept in pristine:
        if os.path.exists(p):
            subprocess.run(["rm", "-rf", kept], check=True)
            subprocess.run(["cp", "-a", p, kept], check=True)
    if not os.path.exists(tree + ".21"):
        subprocess.run([SCRIPTS + "/evolve.py", "step", "20", tree], check=True)
        open(tree + ".21", "w").close()
    run("bk-backup -q -r %s ." % bk, tree)
    if restic:
        run("%s -q -r %s backup ." % (restic, re), tree)
    def back(p):
        # What was seen of the place before goes too: it would tell that storage went back.
        return "rm -rf %s %s/bk-cache/*/seen-*; cp -a %s.20 %s; sync" % (p, WORK, p, p)
    compare("hist: the 21st, three programs", "bk-export -r %s --all --have <(bk-import -r %s --list-imported) | bk-filter -q | bk-import -q -r %s" % (bk, bk2, bk2),
            theirs, reset=(back(bk2), back(re2)))
    compare("hist: the 21st, cut and compressed anew", anew, theirs, reset=(back(bk3), back(re2)))
    compare("hist: prove that the conversion is faithful", "bk-diff -q -r %s --with %s" % (bk, bk2), None, reps=1)
    # restic's snapshots begin at the tree, bk's at the root of the file system.
    for what, ours, pattern in (("a directory", "**/drivers/gpu", "/drivers/gpu"), ("a suffix", "*.h", "*.h")):
        compare("hist: drop %s from all 20 in place" % what, "bk-rewrite -q -r %s --all --drop '%s' --forget" % (bk, ours),
                "%s -q -r %s rewrite --exclude '%s' --forget" % (restic, re, pattern) if offers(restic, "rewrite") else None, reset=(back(bk), back(re)))
    if not offers(restic, "rewrite"):
        print("the restic at hand cannot rewrite: set RESTIC_NEW to one that can", flush=True)
    for p, kept in pristine:
        if os.path.exists(kept):
            shutil.rmtree(p)
            os.rename(kept, p)


def image():
    """A disk image that changes in scattered places, cut anew as a difference."""
    mib = int(os.environ.get("IMAGE_MIB", "4096"))
    size, changed, run_size = mib << 20, (mib << 20) // 100, 256 << 10
    work, bk, anew = WORK + "/image", WORK + "/bk-image", WORK + "/bk-image-anew"
    subprocess.run("rm -rf %s %s %s; mkdir -p %s; BK_REPO=%s bk-init -q; BK_REPO=%s bk-init -q" % (work, bk, anew, work, bk, anew), shell=True, check=True, env=env)
    rng = random.Random(3)
    with open(work + "/disk.img", "wb") as f:
        for _ in range(mib):
            f.write(rng.randbytes(1 << 19) + bytes(1 << 18) + rng.randbytes(1 << 10) * 256)
    run("bk-backup -q -r %s ." % bk, work)
    sync = "bk-sync --json -r %s --to %s --chunker gear:64KiB" % (bk, anew)
    add("image: %d MiB, cut anew" % mib, run(sync), None)
    with open(work + "/disk.img", "r+b") as f:
        for _ in range(changed // run_size):
            f.seek(rng.randrange(size - run_size))
            f.write(rng.randbytes(run_size))
    run("bk-backup -q -r %s ." % bk, work)
    add("image: %d MiB changed in %d places, cut anew" % (changed >> 20, changed // run_size), run(sync + " 2> %s/summary" % WORK), None)
    with open(WORK + "/summary") as f:
        summary = [json.loads(line) for line in f if '"summary"' in line][-1]
    for what, key in (("sent", "bytes_of_chunks"), ("cut", "bytes_cut"), ("read back at the target", "bytes_read_back")):
        rows.append(("image: %s, %% of its size" % what, "%.2f" % (100 * summary[key] / size)) + ("",) * 6)
        print(" | ".join(rows[-1]), flush=True)
    for p in (work, bk, anew):
        shutil.rmtree(p)


def wide():
    """Many snapshots of many files, metadata alone: memory, and what differences cost."""
    snapshots, files = (int(n) for n in os.environ.get("WIDE", "1000x1000000").split("x"))
    bk, bk2, program, stream = WORK + "/bk-wide", WORK + "/bk-wide2", WORK + "/widehistory", WORK + "/wide.bk"
    subprocess.run(["go", "build", "-o", program, "./cmd/internal/widehistory"], check=True, cwd=SCRIPTS + "/../../..")
    subprocess.run("rm -rf %s %s; BK_REPO=%s bk-init -q; BK_REPO=%s bk-init -q; %s --snapshots %d --files %d > %s" % (bk, bk2, bk, bk2, program, snapshots, files, stream),
                   shell=True, check=True, env=env)
    name = "wide: %d snapshots of %d files, " % (snapshots, files)
    for what, command in (("import", "bk-import -q -r %s < %s" % (bk, stream)), ("export one", "bk-export -r %s latest~%d" % (bk, snapshots - 1)),
                          ("export all", "bk-export -r %s --all" % bk), ("to another repository", "bk-sync -q -r %s --to %s" % (bk, bk2)),
                          ("drop a directory in place", "bk-rewrite -q -r %s --all --drop part0003" % bk)):
        add(name + what, run(command), None)
    for p in (bk, bk2):
        shutil.rmtree(p)
    os.remove(stream)


def recompress(borg, bk, anew, bk3):
    """The same beside borg recreate, which cuts and compresses anew within one repository."""
    if not BORG:
        print("borg is not there: nothing to hold recreate against", flush=True)
        return
    if not os.path.exists(borg):
        # Its archives are made of the snapshots, one restored over the other.
        back = WORK + "/restored"
        subprocess.run("rm -rf %s; %s init -e repokey-blake2 %s.part" % (back, BORG, borg), shell=True, check=True, env=env)
        for n in range(19, -1, -1):
            subprocess.run("bk-restore -q -r %s latest~%d -t %s --delete && cd %s && %s create -C lz4 %s.part::s%d ." % (bk, n, back, back, BORG, borg, 19 - n),
                           shell=True, check=True, env=env)
        shutil.rmtree(back)
        os.rename(borg + ".part", borg)
    recreated = WORK + "/borg-recreated"
    compare("hist: cut and compress all 20 anew, beside borg recreate", anew, "%s recreate --recompress -C zstd,3 %s" % (BORG, recreated), reps=1,
            reset=("rm -rf %s; BK_REPO=%s bk-init -q" % (bk3, bk3), "rm -rf %s; cp -a %s %s; sync" % (recreated, borg, recreated)))
    shutil.rmtree(recreated)
    # borg saw the copy, which has the same id, in a newer state: it would take the original for one that was rolled back.
    subprocess.run("rm -rf %s/borg-home/.config/borg/security %s/borg-home/.cache/borg" % (WORK, WORK), shell=True, check=True)
    from_borg()


def from_borg():
    """All archives of the history in borg's repository into bk and restic, beside what borg and restic have for that."""
    borg, taken, tarred, re, re2, out = (WORK + "/" + name for name in ("borg-hist", "bk-of-borg", "borg-tarred", "restic-of-borg", "restic-extracted", "extracted"))
    if not BORG or not os.path.exists(borg):
        sys.exit("there is no %s of borg: run the part hist or convert first" % borg)
    names = subprocess.run([BORG, "list", "--short", borg], check=True, capture_output=True, text=True, env=env).stdout.split()
    few = names[::(len(names) + 1) // 2 or 1][:2] + names[-1:] if len(names) > 3 else names
    all_of = "hist: all %d archives of borg into " % len(names)
    into_bk, fresh_bk = "bk-export -q -r borg:%s --all | bk-import -q -r %s" % (borg, taken), "rm -rf %s; BK_REPO=%s bk-init -q" % (taken, taken)
    into_restic, fresh_restic = "bk-export -q -r borg:%s --all | bk-import -q -r restic:%s" % (borg, re), "rm -rf %s" % re
    by_tar = "for a in %s; do %s export-tar %s::$a - | %s import-tar %s::$a - || exit; done"
    fresh_tar = "rm -rf %s; %s init -e repokey-blake2 %s" % (tarred, BORG, tarred)
    by_disk = "mkdir %s && cd %s && for a in %s; do find . -mindepth 1 -delete && %s extract %s::$a && $RESTIC -q -r %s backup . || exit; done" % (out, out, " ".join(few), BORG, borg, re2)
    fresh_disk = "rm -rf %s %s; $RESTIC -q -r %s init" % (out, re2, re2)
    theirs = compare(all_of + "bk, cut anew by bk-sync, beside %d of them by borg export-tar \\| import-tar" % len(names), "bk-sync -q -r borg:%s --to %s --chunker gear:64KiB --compression fastest" % (borg, taken),
                     by_tar % (" ".join(names), BORG, borg, BORG, tarred), reps=1, reset=(fresh_bk, fresh_tar))
    beside(all_of + "bk, cuts kept, in a pipe", into_bk, theirs, fresh_bk)
    beside(all_of + "restic, cut anew by bk-sync", "bk-sync -q -r borg:%s --to restic:%s --chunker rabin -o compression=fastest" % (borg, re), theirs, fresh_restic)
    beside(all_of + "restic, cuts kept, in a pipe", into_restic, theirs, fresh_restic)
    compare(all_of + "restic, beside borg extract and restic backup of %d of them" % len(few), into_restic, by_disk, reps=1, reset=(fresh_restic, fresh_disk))
    if RESTIC:
        run("$RESTIC -q -r %s check" % re)
    for p in (taken, tarred, re, re2, out):
        shutil.rmtree(p, ignore_errors=True)


def collected(bk, re):
    """Forgets 15 of 20 snapshots in copies of both repositories, which share files: nothing is ever changed in place."""
    a, b = WORK + "/bk-gc", WORK + "/restic-gc"
    # What was seen of the place before must go: a copy put there again is storage that went back.
    reset = tuple("rm -rf %s %s/bk-cache/*/seen-*; cp -al %s %s" % (to, WORK, of, to) for of, to in ((bk, a), (re, b)))
    compare("hist: forget 15 of 20, free the space", "bk-forget -q -r %s --keep-last 5 && bk-gc -q -r %s && bk-gc -q -r %s --grace 0" % (a, a, a),
            "restic -q -r %s forget --keep-last 5 --prune" % b, reset=reset)
    sizes("hist: the space afterwards", a, b)
    compare("hist: the same, everything under new keys", "bk-forget -q -r %s --keep-last 5 && bk-key rotate -q -r %s && bk-gc -q -r %s --reseal --grace 0" % (a, a, a),
            None, reps=1, reset=reset)
    for place in (a, b):
        shutil.rmtree(place, ignore_errors=True)


def gc():
    """Collection where there are many chunks: every 20th pack is needed by none of 10 snapshots."""
    place, chunks = WORK + "/synthetic", os.environ.get("GC_CHUNKS", "10000000")
    shutil.rmtree(place, ignore_errors=True)
    subprocess.run(["go", "test", "-count=1", "-timeout=2h", "-run=^TestSynthetic$", "./repo"], check=True, cwd=SCRIPTS + "/../../..",
                   env=dict(env, BK_SYNTHETIC_DIR=place, BK_SYNTHETIC_CHUNKS=chunks))
    small = WORK + "/bk-small"
    subprocess.run("rm -rf %s; BK_REPO=%s bk-init -q" % (small, small), shell=True, check=True, env=env)
    for name, of in (("%s chunks: open and list, cold" % chunks, place), ("%s chunks: open and list, warm" % chunks, place), ("no chunk: open and list", small)):
        add("open: " + name, run("bk-snapshots -r " + of), None)
    shutil.rmtree(small)
    for name, flags in (("condemn", ""), ("delete", "--grace 0")):
        add("gc: %s chunks, %s" % (chunks, name), run("bk-gc -r %s %s" % (place, flags)), None)
    shutil.rmtree(place)


def main():
    os.makedirs(WORK, exist_ok=True)
    for part in PARTS:
        if part == "linux":
            suite("linux", linux(1), linux(2))
        elif part == "small":
            suite("small", (small(1), small(2))[0], small(2))
        elif part == "big":
            suite("big", big(1), big(2))
        elif part == "hist":
            hist()
        elif part in ("convert", "borg", "restic", "image", "wide", "gc"):
            {"convert": convert, "borg": from_borg, "restic": to_restic, "image": image, "wide": wide, "gc": gc}[part]()
        else:
            sys.exit("unknown part %r: linux, small, big, hist, convert, borg, restic, image, wide, gc" % part)
    header = ("", "bk, s", "restic, s", "ratio", "bk CPU", "restic CPU", "ratio", "peak MiB")
    print("\n| " + " | ".join(header) + " |\n|" + "---|" * len(header))
    for row in rows:
        print("| " + " | ".join(row) + " |")


main()
