"""Build of the compiled core; everything else about the package stands in pyproject.toml."""

from pathlib import Path

import numpy
from Cython.Build import cythonize
from setuptools import Extension, setup

# Wheels run on any x86-64, hence no -march=native; errno of sqrt is never read,
# and without it GCC may keep sqrt inline. -ffast-math stays out: NaN must be seen. No fused
# multiply-add where the machine has one: a distance from a state to itself is exactly 0.
FLAGS = ["-O3", "-fno-math-errno", "-ffp-contract=off"]

extensions = [
    Extension(
        f"qigcore.{source.stem}",
        [f"ext/{source.name}"],
        include_dirs=[numpy.get_include()],
        define_macros=[("NPY_NO_DEPRECATED_API", "NPY_2_0_API_VERSION")],
        extra_compile_args=FLAGS,
        depends=[str(shared) for shared in sorted(Path("ext").glob("*.px[di]"))],
    )
    for source in sorted(Path("ext").glob("*.pyx"))
]

setup(
    ext_modules=cythonize(
        extensions,
        build_dir="build/cython",
        compiler_directives={
            "language_level": 3,
            "boundscheck": False,
            "wraparound": False,
            "cdivision": True,
            "initializedcheck": False,
            "embedsignature": True,
            "autotestdict": False,
            "auto_pickle": False,
            "freethreading_compatible": False,
        },
    ),
)
