/** How a user proves who they are: by a token of your back end, or by a mailed link. */
export type Identity = { identityToken: string } | { mail: string };

/** An identity, or a function that fetches one at the last moment, so that it is fresh. */
export type IdentitySource = Identity | (() => Identity | Promise<Identity>);

/** `pending` until the mailed link has been opened. */
export type SessionStatus = "pending" | "active" | "quarantined" | "closed";

export interface Session {
  readonly id: number;
  readonly status: SessionStatus;
}

export interface Options {
  /** The send server's address; one without a host is of the page's own origin. */
  server: string;
  /** The app's id. */
  app: string;
  /** Where `handbell-worker.js`, or your own worker, is served. Default: `/handbell-worker.js`. */
  worker?: string;
  /** The worker's scope, where it is not the folder that it lies in. */
  scope?: string;
}

/**
 * The codes of this client: `unsupported` and `install` (see `Handbell.support`), `gesture` (not
 * called after a click), `dismissed` (the question was closed), `denied` (the user, or the
 * browser, does not allow notifications), `push-service` (the browser's own push service does not
 * answer), `network` (the server was not reached), `overtaken` (another sign-in or sign-out came
 * in between). Any other is the server's own.
 */
export type ErrorCode =
  | "unsupported"
  | "install"
  | "gesture"
  | "dismissed"
  | "denied"
  | "push-service"
  | "network"
  | "overtaken"
  | (string & {});

export class HandbellError extends Error {
  readonly name: "HandbellError";
  readonly code: ErrorCode;
  /** The HTTP status, 0 without an answer. */
  readonly status: number;
  /** The seconds after which the server may be asked again, where it says so. */
  readonly retryAfter: number | null;
}

/** This browser's side of a Handbell server. Make one for each page. */
export class Handbell {
  constructor(options: Options);

  /**
   * `ready`; `install` on an iPhone or iPad, whose user has to add the page to the home screen
   * first; `none` where there are no push notifications, as in a private window.
   */
  readonly support: "ready" | "install" | "none";

  /** What the user has said; `denied` where it cannot be asked. Nobody is asked by reading it. */
  readonly permission: NotificationPermission;

  /** This browser's session, as it was told last; null without one. */
  session(): Promise<Session | null>;

  /**
   * Ask the user, subscribe, and register who it is. Call it when the user has clicked on what
   * asks for notifications, and await nothing before it: otherwise browsers do not ask.
   */
  enable(identity: IdentitySource): Promise<Session>;

  /**
   * Register another user of this browser, who need not be asked again. The session of the one
   * before is closed.
   */
  signIn(identity: IdentitySource): Promise<Session>;

  /**
   * Tell the server that this browser is still there: at each start of a page. Renews a
   * subscription that was lost, and makes good what had no network. Never asks the user. Null
   * where nobody is registered, or not any more: then call `signIn`.
   */
  refresh(): Promise<Session | null>;

  /**
   * End the session and the subscription: nothing more is shown. `deferred` where the server could
   * not be told; it is told by the next `refresh`.
   */
  signOut(): Promise<"closed" | "deferred">;
}
