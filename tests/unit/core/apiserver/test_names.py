import uuid

from core.apiserver.registry.names import new_uid


def test_uids_are_random_uuids() -> None:
    made = [new_uid() for _ in range(500)]
    assert len(set(made)) == 500
    for each in made:
        found = uuid.UUID(each)
        assert str(found) == each and found.version == 4 and found.variant == uuid.RFC_4122
