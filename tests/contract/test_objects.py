"""Create, read, replace, patch: what is stored and what is refused, in the words of the API server."""

from typing import Any

import pytest

from tests.contract.client import JSON_PATCH, MERGE, METADATA, METADATA_LIST, STRATEGIC, Api, managed


def config_map(name: str, **data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def deployment(name: str, **spec: Any) -> dict[str, Any]:
    container = {"name": "main", "image": "registry.example/app:1"}
    template = {"metadata": {"labels": {"app": name}}, "spec": {"containers": [container]}}
    selector = {"matchLabels": {"app": name}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {"replicas": 0, "selector": selector, "template": template} | spec,
    }


@pytest.fixture
def maps(namespace: str) -> str:
    return f"/api/v1/namespaces/{namespace}/configmaps"


@pytest.fixture
def deployments(namespace: str) -> str:
    return f"/apis/apps/v1/namespaces/{namespace}/deployments"


def test_create(api: Api, maps: str, namespace: str) -> None:
    """A new object comes back whole, with what the server adds, and is owned by the user agent's product."""
    reply = api.post(maps, config_map("a", x="1"))
    metadata = reply.body["metadata"]
    assert reply.code == 201
    assert set(metadata) == {"name", "namespace", "uid", "resourceVersion", "creationTimestamp", "managedFields"}
    assert (metadata["name"], metadata["namespace"]) == ("a", namespace)
    assert managed(reply.body) == [
        {
            "manager": "contract",
            "operation": "Update",
            "apiVersion": "v1",
            "fieldsType": "FieldsV1",
            "fieldsV1": {"f:data": {".": {}, "f:x": {}}},
        }
    ]
    assert api.get(f"{maps}/a").body == reply.body
    assert list(reply.body)[:3] == ["kind", "apiVersion", "metadata"]


def test_create_twice(api: Api, maps: str) -> None:
    """A name that is taken is 409 AlreadyExists."""
    api.post(maps, config_map("a"))
    reply = api.post(maps, config_map("a"))
    assert reply.error == (409, "AlreadyExists", 'configmaps "a" already exists')
    assert reply.body["details"] == {"name": "a", "kind": "configmaps"}


def test_generated_name(api: Api, maps: str) -> None:
    """generateName gets five letters appended."""
    metadata = api.post(maps, {"metadata": {"generateName": "g-"}}).body["metadata"]
    assert metadata["name"].startswith("g-")
    assert len(metadata["name"]) == 7
    assert metadata["generateName"] == "g-"


def test_create_without_a_name(api: Api, maps: str) -> None:
    """No name at all is 422."""
    reply = api.post(maps, {"metadata": {}})
    why = "name or generateName is required"
    assert reply.error == (422, "Invalid", f'ConfigMap "" is invalid: metadata.name: Required value: {why}')
    assert reply.causes == [
        {"reason": "FieldValueRequired", "message": f"Required value: {why}", "field": "metadata.name"}
    ]


def test_create_with_a_bad_name(api: Api, maps: str) -> None:
    """A name that is no DNS name is 422."""
    reply = api.post(maps, config_map("A_b"))
    assert reply.error[:2] == (422, "Invalid")
    assert [cause["field"] for cause in reply.causes] == ["metadata.name"]
    assert "a lowercase RFC 1123 subdomain" in reply.body["message"]


def test_create_with_a_version(api: Api, maps: str) -> None:
    """A resourceVersion on a new object is 500 without a reason."""
    reply = api.post(maps, {"metadata": {"name": "b", "resourceVersion": "3"}})
    assert reply.error == (500, "", "resourceVersion should not be set on objects to be created")


def test_create_in_a_missing_namespace(api: Api) -> None:
    """The error speaks of the namespace, not of the object."""
    reply = api.post("/api/v1/namespaces/nope/configmaps", config_map("a"))
    assert reply.error == (404, "NotFound", 'namespaces "nope" not found')
    assert reply.body["details"] == {"name": "nope", "kind": "namespaces"}


def test_bodies_that_do_not_fit_the_path(api: Api, maps: str) -> None:
    """Kind, version, namespace and name of the body must be the path's."""
    kind = api.post(maps, {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "b"}})
    version = api.post(maps, {"apiVersion": "apps/v1", "kind": "ConfigMap", "metadata": {"name": "b"}})
    elsewhere = api.post(maps, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "b", "namespace": "zz"}})
    api.post(maps, config_map("a"))
    name = api.put(f"{maps}/a", config_map("b"))
    assert [reply.error[:2] for reply in (kind, version, elsewhere, name)] == [(400, "BadRequest")] * 4
    assert elsewhere.body["message"] == (
        "the namespace of the provided object does not match the namespace sent on the request"
    )
    assert name.body["message"] == "the name of the object (b) does not match the name on the URL (a)"
    assert kind.body["message"].startswith('Secret in version "v1" cannot be handled as a ConfigMap: ')
    assert version.body["message"].startswith('ConfigMap in version "v1" cannot be handled as a ConfigMap: ')


@pytest.mark.parametrize("body", ['{"a":', "[]", "nonsense"])
def test_unreadable_bodies(api: Api, maps: str, body: str) -> None:
    """What is no JSON object is 400."""
    assert api.post(maps, body).error[:2] == (400, "BadRequest")


def test_wrong_type(api: Api, maps: str) -> None:
    """A value of a wrong type is 400 on POST."""
    reply = api.post(maps, {"metadata": {"name": "t"}, "data": {"x": 1}})
    assert reply.error[:2] == (400, "BadRequest")


def test_media_types(api: Api, maps: str) -> None:
    """Bodies and representations nobody speaks are 415 and 406."""
    api.post(maps, config_map("a"))
    post = api.call("POST", maps, "{}", media="text/plain")
    patch = api.call("PATCH", f"{maps}/a", "{}", media="text/plain")
    get = api.get(f"{maps}/a", Accept="text/html")
    assert post.error[:2] == (415, "UnsupportedMediaType")
    assert post.body["message"].startswith("the body of the request was in an unknown format")
    assert patch.error == (415, "UnsupportedMediaType", "415: Unsupported Media Type")
    assert get.error[:2] == (406, "NotAcceptable")


def test_paths_that_are_not_there(api: Api, namespace: str, maps: str, deployments: str) -> None:
    """Unknown groups answer in plain text, unknown resources with a nameless Status, unknown names with their name."""
    for path in ("/zz", "/apis/zz/v1/foos"):
        reply = api.get(path)
        assert (reply.code, reply.body) == (404, "404 page not found\n")
        assert reply.headers["Content-Type"].startswith("text/plain")
    nameless = (404, "NotFound", "the server could not find the requested resource")
    api.post(maps, config_map("a"))
    paths = [f"/api/v1/namespaces/{namespace}/foos", "/apis/apps/v9/deployments", f"{maps}/a/status", f"{maps}/a/zz"]
    for path in [*paths, "/api/v1/configmaps/a", f"/api/v1/namespaces/{namespace}/nodes"]:
        reply = api.get(path)
        assert (reply.error, reply.body["details"]) == (nameless, {}), path
    named = api.get(f"{deployments}/zz")
    assert named.error == (404, "NotFound", 'deployments.apps "zz" not found')
    assert named.body["details"] == {"name": "zz", "group": "apps", "kind": "deployments"}


def test_methods_that_do_not_fit(api: Api, maps: str) -> None:
    """A method the path does not know is 405."""
    api.post(maps, config_map("a"))
    replies = [
        api.post(f"{maps}/a", config_map("a")),
        api.put(maps, config_map("a")),
        api.patch(maps, {}),
        api.post("/api/v1/configmaps", config_map("a")),
    ]
    expected = (405, "MethodNotAllowed", "the server does not allow this method on the requested resource")
    assert [reply.error for reply in replies] == [expected] * 4


def test_replace(api: Api, maps: str) -> None:
    """PUT replaces what the body leaves out, keeps identity, and takes a new version."""
    first = api.post(maps, config_map("a", x="1", y="2"))
    second = api.put(f"{maps}/a", config_map("a", x="2"))
    assert second.code == 200
    assert second.body["data"] == {"x": "2"}
    assert second.body["metadata"]["uid"] == first.body["metadata"]["uid"]
    assert int(second.rv) > int(first.rv)
    assert managed(second.body)[0]["fieldsV1"] == {"f:data": {".": {}, "f:x": {}}}


def test_replace_without_change(api: Api, maps: str) -> None:
    """Writing what is already there changes nothing, not even the version."""
    first = api.post(maps, config_map("a", x="1"))
    assert api.put(f"{maps}/a", config_map("a", x="1")).body == first.body


def test_replace_conflicts(api: Api, maps: str) -> None:
    """Another version or another uid is 409 without causes; a missing object 404."""
    api.post(maps, config_map("a"))
    stale = config_map("a")
    stale["metadata"]["resourceVersion"] = "1"
    reply = api.put(f"{maps}/a", stale)
    modified = "the object has been modified; please apply your changes to the latest version and try again"
    assert reply.error == (
        409,
        "Conflict",
        f'Operation cannot be fulfilled on configmaps "a": {modified}',
    )
    assert reply.body["details"] == {"name": "a", "kind": "configmaps"}
    other = config_map("a")
    other["metadata"]["uid"] = "zz"
    reply = api.put(f"{maps}/a", other)
    assert reply.error[:2] == (409, "Conflict")
    assert "Precondition failed: UID in precondition: zz, UID in object meta: " in reply.body["message"]
    assert api.put(f"{maps}/zz", config_map("zz")).error == (404, "NotFound", 'configmaps "zz" not found')


def test_merge_patch(api: Api, maps: str) -> None:
    """A merge patch sets, removes by null, and makes its manager an owner of what it set."""
    api.post(maps, config_map("a", x="1", y="2"))
    reply = api.patch(f"{maps}/a?fieldManager=m", {"data": {"x": None, "z": "3"}})
    assert reply.code == 200
    assert reply.body["data"] == {"y": "2", "z": "3"}
    fields = {entry["manager"]: entry["fieldsV1"] for entry in managed(reply.body)}
    assert fields == {"contract": {"f:data": {".": {}, "f:y": {}}}, "m": {"f:data": {"f:z": {}}}}


def test_json_patch(api: Api, maps: str) -> None:
    """A JSON patch does its operations in order; one that cannot be done is 422."""
    api.post(maps, config_map("a", x="1"))
    reply = api.patch(f"{maps}/a", [{"op": "add", "path": "/data/y", "value": "2"}], JSON_PATCH)
    assert reply.body["data"] == {"x": "1", "y": "2"}
    rejected = (422, "Invalid", "the server rejected our request due to an error in our request")
    for operation in ("test", "replace"):
        path = "/data/x" if operation == "test" else "/nope/x"
        failed = api.patch(f"{maps}/a", [{"op": operation, "path": path, "value": "9"}], JSON_PATCH)
        assert failed.error == rejected
    assert api.patch(f"{maps}/a", {"a": 1}, JSON_PATCH).error[:2] == (400, "BadRequest")


def test_patch_preconditions(api: Api, maps: str) -> None:
    """A version in the patch is a precondition; the uid cannot be changed."""
    api.post(maps, config_map("a"))
    assert api.patch(f"{maps}/a", {"metadata": {"resourceVersion": "1"}}).error[:2] == (409, "Conflict")
    reply = api.patch(f"{maps}/a", {"metadata": {"uid": "1"}})
    assert reply.error[:2] == (422, "Invalid")
    assert reply.causes[0]["field"] == "metadata.uid"


def test_strategic_merge_patch(api: Api, deployments: str) -> None:
    """A strategic patch merges containers by name and env by name; a merge patch replaces lists."""
    api.post(deployments, deployment("a"))
    container = {"name": "main", "env": [{"name": "A", "value": "1"}]}
    body = {"spec": {"template": {"spec": {"containers": [container]}}}}
    merged = api.patch(f"{deployments}/a", body, STRATEGIC)
    (only,) = merged.body["spec"]["template"]["spec"]["containers"]
    assert merged.code == 200
    assert (only["image"], only["env"]) == ("registry.example/app:1", [{"name": "A", "value": "1"}])
    replaced = api.patch(f"{deployments}/a", body, MERGE)
    assert replaced.error[:2] == (422, "Invalid")
    assert "spec.template.spec.containers[0].image" in {cause["field"] for cause in replaced.causes}


def test_generation_counts_spec_changes(api: Api, deployments: str) -> None:
    """The generation moves with the spec, not with metadata or status."""
    first = api.post(deployments, deployment("a"))
    labelled = api.patch(f"{deployments}/a", {"metadata": {"labels": {"l": "1"}}})
    status = api.patch(f"{deployments}/a/status", {"status": {"observedGeneration": 1, "replicas": 0}})
    scaled = api.patch(f"{deployments}/a", {"spec": {"minReadySeconds": 1}})
    generations = [reply.body["metadata"]["generation"] for reply in (first, labelled, status, scaled)]
    assert generations == [1, 1, 1, 2]


def test_quantities_are_canonical(api: Api, deployments: str) -> None:
    """Quantities are stored in one form: as few digits and as large a suffix as possible."""
    forms = ["0.5", "1000m", "1024Mi", "1.5Gi", "1000Ki", "2e3", "1E", "0.1Gi", "1.5Ki", "100u", "1000000"]
    containers = [
        {"name": f"c{n}", "image": "a:1", "resources": {"requests": {"memory": form}}} for n, form in enumerate(forms)
    ]
    body = deployment("a")
    body["spec"]["template"]["spec"]["containers"] = containers
    stored = api.post(deployments, body).body["spec"]["template"]["spec"]["containers"]
    canonical = ["500m", "1", "1Gi", "1536Mi", "1000Ki", "2e3", "1E", "107374182400m", "1536", "1m", "1M"]
    assert [container["resources"]["requests"]["memory"] for container in stored] == canonical


def test_status_is_a_place_of_its_own(api: Api, namespace: str) -> None:
    """Writes to an object leave its status alone, writes to its status leave the rest alone."""
    path = f"/api/v1/namespaces/{namespace}/resourcequotas"
    body = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q"}, "spec": {"hard": {"pods": "2"}}}
    created = api.post(path, body | {"status": {"hard": {"pods": "9"}}})
    assert created.body["status"].get("hard") != {"pods": "9"}
    written = api.patch(f"{path}/q/status", {"spec": {"hard": {"pods": "5"}}, "status": {"hard": {"pods": "7"}}})
    assert written.code == 200
    assert (written.body["spec"], written.body["status"]) == ({"hard": {"pods": "2"}}, {"hard": {"pods": "7"}})
    ignored = api.patch(f"{path}/q", {"spec": {"hard": {"pods": "3"}}, "status": {"hard": {"pods": "1"}}})
    assert (ignored.body["spec"], ignored.body["status"]) == ({"hard": {"pods": "3"}}, {"hard": {"pods": "7"}})


def test_metadata_only(api: Api, maps: str) -> None:
    """PartialObjectMetadata leaves everything but metadata out, for single objects, lists and replies to writes."""
    whole = api.post(maps, config_map("a", x="1"))
    one = api.get(f"{maps}/a", Accept=METADATA)
    kind = {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1"}
    assert one.body == kind | {"metadata": whole.body["metadata"]}
    many = api.get(f"{maps}?fieldSelector=metadata.name%3Da", Accept=METADATA_LIST)
    assert (many.body["kind"], many.body["apiVersion"]) == ("PartialObjectMetadataList", "meta.k8s.io/v1")
    assert many.body["items"] == [one.body]
    patched = api.call("PATCH", f"{maps}/a", {"data": {"x": "2"}}, media=MERGE, Accept=METADATA)
    assert {name: patched.body[name] for name in kind} == kind
    assert api.get(f"{maps}/a", Accept=METADATA_LIST).error[:2] == (406, "NotAcceptable")
    assert api.get(maps, Accept=METADATA).error[:2] == (406, "NotAcceptable")


def test_dry_run(api: Api, maps: str) -> None:
    """A dry run answers as the write would, and writes nothing."""
    created = api.post(f"{maps}?dryRun=All", config_map("a"))
    assert created.code == 201
    assert created.body["metadata"]["uid"]
    assert "resourceVersion" not in created.body["metadata"]
    assert api.get(f"{maps}/a").code == 404
    real = api.post(maps, config_map("a", x="1"))
    replaced = api.put(f"{maps}/a?dryRun=All", config_map("a", x="2"))
    assert (replaced.body["data"], replaced.rv) == ({"x": "2"}, real.rv)
    assert api.delete(f"{maps}/a?dryRun=All").code == 200
    assert api.get(f"{maps}/a").body == real.body
    assert api.post(f"{maps}?dryRun=Some", config_map("b")).error[:2] == (422, "Invalid")


def test_unknown_fields(api: Api, maps: str) -> None:
    """An unknown field is dropped with a warning, or refused when validation is strict."""
    body = {"metadata": {"name": "u"}, "dat": {"x": "1"}}
    strict = api.post(f"{maps}?fieldValidation=Strict", body)
    assert strict.error[:2] == (400, "BadRequest")
    assert strict.body["message"].endswith('strict decoding error: unknown field "dat"')
    warned = api.post(f"{maps}?fieldValidation=Warn", body)
    assert warned.code == 201
    assert "dat" not in warned.body
    assert warned.headers["Warning"] == '299 - "unknown field \\"dat\\""'


def test_bodies_over_the_limit(api: Api, maps: str) -> None:
    """A body over 3 MiB is 413."""
    api.post(maps, config_map("a"))
    body = '{"data":{"x":"' + "y" * 3_200_000 + '"}}'
    reply = api.patch(f"{maps}/a", body)
    assert reply.error == (413, "RequestEntityTooLarge", "Request entity too large: limit is 3145728")


def test_unauthenticated(api: Api) -> None:
    """A token nobody knows is 401."""
    reply = api.call("GET", "/api/v1/namespaces", Authorization="Bearer nobody")
    assert reply.error == (401, "Unauthorized", "Unauthorized")


def test_headers(api: Api) -> None:
    """Every reply carries an audit id and a date, and is not to be cached."""
    headers = api.get("/api/v1/namespaces").headers
    assert headers["Audit-Id"]
    assert headers["Date"].endswith(" GMT")
    assert headers["Cache-Control"] == "no-cache, private"
