"""The documentation site: how it is built, what of it is generated, and its blocks, each of which is run.

How a page is written so that its blocks run (blocks.py makes one bash script of a page, with the page's line numbers;
`python -m tests.docs.stage docs/top.md` plays it and prints what it said):

- Every fenced block names its language: `sh` is run, `text` is what is printed, `yaml`, `json`, `toml` and `python`
  are what they say.
- All `sh` and `python` blocks of a page run in order, in one shell; each begins in a folder like the repository's root, with
  experts.yaml, routes.test.yaml, deploy/ and what is in given/. A command that fails fails the test, unless declared.py lists it.
  What of a command is put otherwise where it runs stands in declared.py.
- A block with a title, such as ```` ```yaml title="experts.yaml" ````, is saved under that name in that folder when its turn comes.
- `moe-gateway serve …` and `make serve` start a gateway, wait until it is ready and leave it running until the next one or the
  page's end. http://127.0.0.1:8080 is that gateway; on a page that starts none, one that all pages share.
- http://10.0.0.5:8001 and every other address of 10.0.0.* is a model server that answers in a few words.
- docker, kubectl, vllm and the like are replaced by programs in instead/, each of which says why and what it checks.
- `yaml` without a title is read as a part of experts.yaml where it has one of its keys.
"""
