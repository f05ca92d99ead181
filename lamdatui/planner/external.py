"""Somebody else's OpenAI-compatible server: it is only looked at, never started or ended."""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import ClassVar

import httpx

from lamdatui.base.errors import EXIT_PLANNER, LamdatuiError
from lamdatui.planner import reading, vllm
from lamdatui.planner.client import endpoint
from lamdatui.planner.server import PlannerServer, listed_models


class ExternalServer(PlannerServer):
    """A server at `planner.url`."""

    external: ClassVar[bool] = True

    @property
    def alive(self) -> bool:
        return True

    async def start(self) -> None:
        url, self.key = endpoint(self._settings.url, "models"), self._key()
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        try:
            async with (
                asyncio.timeout(self._settings.ready_limit),
                httpx.AsyncClient(trust_env=False, timeout=10.0, headers=headers) as http,
            ):
                response = await reading.call(http, "GET", url, 10.0)
                if response.status_code in (401, 403):
                    raise self._locked(url)
                response.raise_for_status()
                listed = listed_models(response)
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as error:
            raise self._unreachable(f"no planner answers at {url}: {error or type(error).__name__}") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise self._unreachable(f"what answers at {url} is not an OpenAI-compatible server") from error
        if not self.model:
            if not listed:
                raise self._unreachable(f"the server at {url} offers no model")
            self.model = listed[0]
        self.resting = False
        sleep = vllm.Sleep(self.url, self.key)
        # A run that was killed may have left it asleep.
        if self._settings.sleep != "never" and await sleep.is_sleeping():
            await sleep.wake()

    async def close(self) -> None:
        if self.resting:
            with contextlib.suppress(LamdatuiError):
                await self.wake()
        self.resting = False

    async def _rest(self) -> bool:
        """Only a vLLM with VLLM_SERVER_DEV_MODE=1 can."""
        sleep = vllm.Sleep(self.url, self.key)
        asleep = await sleep.is_sleeping()
        if asleep is None:
            return False
        if not asleep:
            await sleep.sleep(1)
        return True

    async def _wake(self) -> bool:
        await vllm.Sleep(self.url, self.key).wake()
        return False

    def _key(self) -> str:
        name = self._settings.api_key_env
        key = os.environ.get(name, "") if name else ""
        if name and not key:
            raise LamdatuiError(
                f"the environment variable {name}, which should hold the planner's key, is not set",
                where="planner.api_key_env",
                fix=f"export {name}=…, then start again",
                exit_code=EXIT_PLANNER,
            )
        return key

    def _locked(self, url: str) -> LamdatuiError:
        return LamdatuiError(
            f"the server at {url} {'refuses the key' if self.key else 'wants a key'}",
            where="planner.api_key_env",
            fix="put the key into an environment variable and that variable's name into planner.api_key_env",
            exit_code=EXIT_PLANNER,
        )

    def _unreachable(self, what: str) -> LamdatuiError:
        fix = "start the server (vLLM, llama-server, Ollama, LM Studio) or correct planner.url"
        return LamdatuiError(what, where="planner.url", fix=fix, exit_code=EXIT_PLANNER)
