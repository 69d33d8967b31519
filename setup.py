"""What pyproject.toml cannot say: an editable install brings the data files too.

setuptools asks for them there as `has_data`, a name that its distributions lack.
"""

from setuptools import Distribution, setup


class WithData(Distribution):
    has_data = Distribution.has_data_files


setup(distclass=WithData)
