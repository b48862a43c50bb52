"""Headers become the user that is asked for, and everything that must be allowed for it."""

import pytest

from core.apiserver.authn import User
from core.apiserver.authn.impersonation import permissions, requested
from core.errors import BadRequest

ACCOUNT = "system:serviceaccount:team:robot"


def test_no_headers_ask_for_nobody():
    assert requested([]) is None


@pytest.mark.parametrize(
    ("headers", "user"),
    [
        ([("impersonate-user", "bob")], User("bob", ("system:authenticated",))),
        (
            [("impersonate-user", "bob"), ("impersonate-group", "a"), ("impersonate-group", "b")],
            User("bob", ("a", "b", "system:authenticated")),
        ),
        ([("impersonate-user", "system:anonymous")], User("system:anonymous", ("system:unauthenticated",))),
        (
            [("impersonate-user", ACCOUNT)],
            User(ACCOUNT, ("system:serviceaccounts", "system:serviceaccounts:team", "system:authenticated")),
        ),
        (
            [
                ("impersonate-user", "bob"),
                ("impersonate-uid", "7"),
                ("impersonate-extra-scopes%2fx", "v"),
                ("impersonate-extra-scopes%2fx", "w"),
            ],
            User("bob", ("system:authenticated",), "7", {"scopes/x": ("v", "w")}),
        ),
    ],
)
def test_headers_name_a_user(headers, user):
    found = requested(headers)
    assert found == user
    assert found.extra == user.extra


def test_groups_without_a_user_are_refused():
    with pytest.raises(BadRequest, match="without impersonating a user"):
        requested([("impersonate-group", "system:masters")])


def said(user):
    return {(each.group, each.full_resource, each.namespace, each.name) for each in permissions(user)}


def test_each_part_needs_its_own_permission():
    user = User("bob", ("system:masters", "system:authenticated"), "7", {"scopes": ("v",)})
    api = "authentication.k8s.io"
    assert said(user) == {
        ("", "users", "", "bob"),
        ("", "groups", "", "system:masters"),
        (api, "uids", "", "7"),
        (api, "userextras/scopes", "", "v"),
    }
    assert all(each.verb == "impersonate" for each in permissions(user))


def test_a_service_account_is_impersonated_as_one():
    assert said(requested([("impersonate-user", ACCOUNT)])) == {("", "serviceaccounts", "team", "robot")}
    assert ("", "groups", "", "system:masters") in said(
        requested([("impersonate-user", ACCOUNT), ("impersonate-group", "system:masters")])
    )
