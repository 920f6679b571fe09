import pytest

from mtp_mlx.text.template import ChatTemplate
from mtp_mlx.text.tokenizer import Tokenizer
from tests.text.text_fixtures import build_library, write_model


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("model")
    write_model(path)
    return path


@pytest.fixture(scope="session")
def library():
    return build_library()


@pytest.fixture(scope="session")
def tokenizer(folder):
    return Tokenizer.from_folder(folder)


@pytest.fixture(scope="session")
def template(folder):
    return ChatTemplate.from_folder(folder)
