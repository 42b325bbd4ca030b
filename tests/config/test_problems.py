"""Problems as people read them."""

from __future__ import annotations

from app.config.problems import ConfigError, Problem, dotted, nearest


def test_a_problem_names_file_line_key_and_what_was_meant() -> None:
    problem = Problem("t.yaml", 3, "routing.stratgy", "unknown key", "routing.strategy")
    assert str(problem) == "t.yaml:3: routing.stratgy: unknown key; did you mean routing.strategy?"


def test_a_problem_of_the_whole_file_has_no_empty_places() -> None:
    assert str(Problem("t.yaml", None, "", "cannot be read")) == "t.yaml: cannot be read"


def test_an_error_says_all_of_them() -> None:
    error = ConfigError([Problem("environment", None, "A", "x"), Problem("f", 1, "b", "y")])
    assert str(error) == "environment: A: x\nf:1: b: y"
    assert [each.key for each in error.problems] == ["A", "b"]


def test_the_nearest_name_is_found_in_any_case_and_only_if_it_is_near() -> None:
    assert nearest("STREMING", ["streaming", "sessions"]) == "streaming"
    assert nearest("zzz", ["streaming", "sessions"]) is None


def test_paths_are_written_as_in_the_documentation() -> None:
    assert dotted(("budgets", 1, "limit")) == "budgets[1].limit"
    assert dotted(("models", "ollama/qwen2.5", "price")) == 'models."ollama/qwen2.5".price'
    assert dotted(()) == ""
