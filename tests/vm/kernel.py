# SPDX-License-Identifier: BSD-3-Clause
"""A stock Debian kernel to boot, without installing it: the package is fetched and unpacked into a cache folder.

prepare() promises three files that fit each other: vmlinux (an ELF file, so that QEMU can enter it by PVH, which is far
quicker than the compressed image), initramfs (busybox, the modules below, guest/init.sh), and the kernel's release. What
is there already is used again, as long as the package, the module list and init.sh are the same. Several processes may
call it at once. Needs no root: if apt's lists are missing or stale, a private copy of them is fetched into the cache.
"""
import fcntl
import glob
import gzip
import hashlib
import lzma
import os
import re
import shutil
import struct
import subprocess

HERE = os.path.dirname(os.path.abspath(__file__))
META_PACKAGE = 'linux-image-amd64'
BUSYBOX = '/bin/busybox'
# In order of loading, each behind what it depends on. The checksum modules are asked for by name, not by symbol.
MODULES = ('virtio_pci', '9pnet_virtio', '9p', 'overlay', 'crc32c_generic', 'crct10dif_generic', 'crc64_rocksoft_generic',
           'nvme', 'vfio_iommu_type1', 'vfio-pci', 'uio_pci_generic', 'fuse', 'loop', 'ext4')


class Unavailable(Exception):
    """Something that the machine must have is missing; the text says what to install."""


class Kernel:
    def __init__(self, folder, package):
        self.package = package
        self.vmlinux = f'{folder}/vmlinux'
        self.initramfs = f'{folder}/initramfs.gz'


def prepare(cache, say):
    """The kernel in folder @cache; @say is told what is being done. Raises Unavailable."""
    if not os.access(BUSYBOX, os.X_OK):
        raise Unavailable(f'no {BUSYBOX}: install busybox-static')
    os.makedirs(cache, exist_ok=True)
    with open(f'{cache}/lock', 'w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        package = find_package(cache)
        folder = f'{cache}/{package}'
        if not os.path.exists(f'{folder}/complete'):
            say(f'fetching {package}')
            shutil.rmtree(folder, ignore_errors=True)
            os.makedirs(f'{folder}/tree')
            unpack(fetch(package, cache), folder)
        kernel = Kernel(folder, package)
        make_initramfs(folder, kernel.initramfs)
    return kernel


# ---- the package ----------------------------------------------------------------------------------------------------
def apt(program, *arguments, cache=None, cwd=None):
    """Runs apt-get or apt-cache; with @cache on lists of our own in there."""
    command = [program, '-q']
    if cache:
        os.makedirs(f'{cache}/apt/lists/partial', exist_ok=True)
        os.makedirs(f'{cache}/apt/archives/partial', exist_ok=True)
        command += ['-o', f'Dir::State::Lists={cache}/apt/lists', '-o', f'Dir::Cache={cache}/apt',
                    '-o', f'Dir::Cache::Archives={cache}/apt/archives', '-o', 'Debug::NoLocking=1']
    return subprocess.run(command + list(arguments), cwd=cwd, capture_output=True, text=True, stdin=subprocess.DEVNULL,
                          timeout=600, env={**os.environ, 'LC_ALL': 'C'})


def own_lists(cache):
    """True when lists of our own are there."""
    return bool(glob.glob(f'{cache}/apt/lists/*Packages*'))


def refresh_lists(cache):
    result = apt('apt-get', 'update', cache=cache)
    if not own_lists(cache):
        raise Unavailable(f'apt-get update fetched no package lists: {result.stderr.strip()[-500:]}')


def find_package(cache):
    """The name of the package with today's kernel: what the meta-package depends on."""
    for private in (False, True):
        if private and not own_lists(cache):
            refresh_lists(cache)
        result = apt('apt-cache', 'depends', META_PACKAGE, cache=cache if private else None)
        found = re.search(r'Depends: (linux-image-[\w.+-]+)', result.stdout)
        if found:
            return found.group(1)
    raise Unavailable(f'apt-cache depends {META_PACKAGE} names no kernel: {(result.stdout + result.stderr)[-500:]}')


def fetch(package, cache):
    """Downloads the package; returns the path of the .deb."""
    folder = f'{cache}/download'
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    for private in (False, True):
        if private:
            refresh_lists(cache)
        result = apt('apt-get', 'download', package, cache=cache if private else None, cwd=folder)
        found = glob.glob(f'{folder}/*.deb')
        if result.returncode == 0 and found:
            return found[0]
    raise Unavailable(f'apt-get download {package}: {result.stderr.strip()[-500:]}')


def unpack(deb, folder):
    """Leaves vmlinux and the wanted modules in @folder, with modules.order in loading order."""
    subprocess.run(['dpkg-deb', '-x', deb, f'{folder}/tree'], check=True, capture_output=True)
    os.unlink(deb)
    with open(glob.glob(f'{folder}/tree/boot/vmlinuz-*')[0], 'rb') as file:
        image = file.read()
    with open(f'{folder}/vmlinux', 'wb') as file:
        file.write(extract_vmlinux(image))
    available = {os.path.basename(path)[:-3].replace('-', '_'): path
                 for path in glob.glob(f'{folder}/tree/lib/modules/*/kernel/**/*.ko', recursive=True)}
    os.makedirs(f'{folder}/modules')
    order = []
    for name in MODULES:
        collect_module(name.replace('-', '_'), available, order)
    for name in order:
        shutil.copy(available[name], f'{folder}/modules/{name}.ko')
    with open(f'{folder}/modules/order', 'w') as file:
        file.write(' '.join(order) + '\n')
    shutil.rmtree(f'{folder}/tree')
    with open(f'{folder}/complete', 'w'):
        pass


def extract_vmlinux(image):
    """The ELF file inside a bzImage. Linux, Documentation/arch/x86/boot.rst: setup_sects, payload_offset and _length."""
    if image[0x202:0x206] != b'HdrS':
        raise Unavailable('the kernel image is no bzImage')
    setup_size = ((image[0x1f1] or 4) + 1) * 512
    offset, length = struct.unpack_from('<II', image, 0x248)
    payload = image[setup_size + offset:setup_size + offset + length]
    if payload.startswith(b'\xfd7zXZ'):
        elf = lzma.LZMADecompressor(lzma.FORMAT_XZ).decompress(payload)
    elif payload.startswith(b'\x1f\x8b'):
        elf = gzip.decompress(payload[:-4])  # the last four bytes are the size
    elif payload.startswith(b'\x28\xb5\x2f\xfd'):
        elf = subprocess.run(['zstd', '-dc'], input=payload[:-4], stdout=subprocess.PIPE, check=True).stdout
    else:
        raise Unavailable(f'kernel compressed in an unknown way ({payload[:4].hex()})')
    if not elf.startswith(b'\x7fELF'):
        raise Unavailable('no ELF file inside the kernel image')
    return elf


def collect_module(name, available, order):
    """Adds the module to @order behind what it depends on. One that is built in, or gone, is left out."""
    if name in order or name not in available:
        return
    with open(available[name], 'rb') as file:
        found = re.search(rb'\0depends=([\w,-]*)\0', file.read())
    for needed in (found.group(1).decode().split(',') if found else ()):
        collect_module(needed.replace('-', '_'), available, order)
    order.append(name)


# ---- the initramfs --------------------------------------------------------------------------------------------------
def make_initramfs(folder, path):
    """Writes the archive unless it is there and made of the same things."""
    files = {'init': f'{HERE}/guest/init.sh', 'bin/busybox': BUSYBOX}
    for name in sorted(os.listdir(f'{folder}/modules')):
        files[f'modules/{name}'] = f'{folder}/modules/{name}'
    entries = [(directory, 0o040755, b'')
               for directory in ('bin', 'modules', 'proc', 'sys', 'dev', 'host', 'overlay', 'root')]
    for name, source in files.items():
        with open(source, 'rb') as file:
            entries.append((name, 0o100755, file.read()))
    entries.append(('TRAILER!!!', 0, b''))
    archive = b''.join(cpio_entry(number, *entry) for number, entry in enumerate(entries, 1))
    digest = hashlib.sha256(archive).hexdigest()
    stamp = f'{path}.sha256'
    if os.path.exists(stamp) and os.path.exists(path):
        with open(stamp) as file:
            if file.read() == digest:
                return
    with open(f'{path}.new', 'wb') as file:
        file.write(gzip.compress(archive, 1))
    os.rename(f'{path}.new', path)
    with open(stamp, 'w') as file:
        file.write(digest)


def cpio_entry(number, name, mode, data):
    """One file of a "newc" cpio archive: 13 fields of 8 hex digits, name and data each padded to 4 bytes."""
    encoded = name.encode() + b'\0'
    fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(encoded), 0)
    header = b'070701' + b''.join(b'%08x' % field for field in fields) + encoded
    return header + b'\0' * (-len(header) % 4) + data + b'\0' * (-len(data) % 4)
