"""A tiny shop that tells its customers on their phones when something is sent off.

Run it with: uvicorn shop:application
"""

import os
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

import jwt
from fastapi import BackgroundTasks, Depends, FastAPI, HTTPException
from fastapi.security import HTTPBasic, HTTPBasicCredentials

from handbell import AsyncPushNotification
from handbell.errors import HandbellError

APP = os.environ["SHOP_APP"]
"""The app id: TEAM123456.com.sample.myapp."""
IDENTITY_KEY = os.environ["SHOP_IDENTITY_KEY"]
"""The secret that was given to ``handbell app set --proof token --identity-key``."""

push = AsyncPushNotification(
    APP, url=os.environ["HANDBELL_SERVER"], api_key=os.environ["HANDBELL_API_KEY"]
)


@asynccontextmanager
async def _lifespan(_application: FastAPI) -> AsyncIterator[None]:
    yield
    await push.close()


application = FastAPI(title="A tiny shop", lifespan=_lifespan)


def _customer(signed_in: Annotated[HTTPBasicCredentials, Depends(HTTPBasic())]) -> str:
    """Return the mail of who is signed in. A real shop checks the password here."""
    if signed_in.password != os.environ["SHOP_PASSWORD"]:
        raise HTTPException(401, "Wrong password")
    return signed_in.username


Customer = Annotated[str, Depends(_customer)]


@application.post("/push-identity")
def push_identity(customer: Customer) -> dict[str, str]:
    """Give the app a token that tells Handbell who is signed in: for one registration, now."""
    now = int(time.time())
    claims = {"sub": customer, "aud": APP, "iat": now, "exp": now + 300, "jti": uuid.uuid4().hex}
    return {"identity_token": jwt.encode(claims, IDENTITY_KEY, algorithm="HS256")}


@application.post("/orders/{order}/send-off", status_code=202)
async def send_off(order: int, customer: Customer, later: BackgroundTasks) -> dict[str, str]:
    """Send an order off, and tell the customer. The shop does not wait for the phone."""
    later.add_task(_tell, order, customer)
    return {"order": str(order), "state": "sent off"}


async def _tell(order: int, customer: str) -> None:
    try:
        await push.open(
            ("Order", order),
            {"title": "Your order is on its way", "body": f"Order {order} was sent off."},
            customer,
            # However often this event comes, the customer hears of it once.
            idempotency_key=f"order-{order}-sent-off",
        )
    except HandbellError as error:
        # The order is sent off all the same; the text says what to mend.
        print(f"Nobody was told of order {order}: {error}")
