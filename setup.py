"""Build of the compiled core; everything else about the package stands in pyproject.toml."""

from pathlib import Path

import numpy
from Cython.Build import cythonize
from setuptools import Extension, setup

# Wheels run on any x86-64, hence no -march=native: ext/sums.h chooses at run time. -ffast-math stays out:
# NaN must be seen. errno of sqrt is never read, nor are the processor's exception flags; without them
# GCC keeps sqrt inline and computes both sides of a choice at once. No fused multiply-add but where it
# is written: a distance from a state to itself is exactly 0, on each machine.
FLAGS = ["-O3", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=off"]

extensions = [
    Extension(
        f"qigcore.{source.stem}",
        [f"ext/{source.name}"],
        include_dirs=["ext", numpy.get_include()],
        define_macros=[("NPY_NO_DEPRECATED_API", "NPY_2_0_API_VERSION")],
        extra_compile_args=FLAGS,
        depends=[str(shared) for shared in sorted(Path("ext").iterdir()) if shared.suffix != ".pyx"],
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
