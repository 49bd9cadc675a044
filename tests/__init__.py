"""The tests. Assertions in the support modules explain themselves as those of the tests do."""

import pytest

pytest.register_assert_rewrite("tests.support")
