import { DurableObject } from "cloudflare:workers";
import type { NewKey } from "../auth/key-store.ts";
import type { Origin, Page } from "./audit-log.ts";
import { DirectoryStore, type KeyChange, type KeySpec, type TenantChange, type TenantSpec } from "./directory-store.ts";
import { noKey, noTenant, type Outcome } from "./outcome.ts";
import { Publication } from "./publication.ts";
import {
  type AuditDescription,
  describeKey,
  describeTenant,
  type KeyDescription,
  type TenantDescription,
} from "./records.ts";

/** When to publish again what could not be published, milliseconds. */
const RETRY_MS = 2000;

/** How long one publication may hold back the others before the alarm takes over, milliseconds. */
const CONTINUE_MS = 100;

/** The one directory of all tenants and keys. A change is answered once the tenant's ledger knows of it. */
export class Directory extends DurableObject<Env> {
  readonly #store: DirectoryStore;
  readonly #publication: Publication;

  constructor(ctx: DurableObjectState, env: Env) {
    super(ctx, env);
    this.#store = new DirectoryStore(ctx.storage);
    this.#publication = new Publication(ctx.storage.sql, env);
  }

  async createTenant(spec: TenantSpec, by: Origin): Promise<Outcome<TenantDescription>> {
    return await this.#published(spec.name, this.#store.createTenant(spec, by, Date.now()));
  }

  tenant(name: string): Outcome<TenantDescription> {
    const tenant = this.#store.tenant(name);
    return tenant ? { value: describeTenant(tenant) } : noTenant(name);
  }

  listTenants(page: Page): { tenants: TenantDescription[]; more: boolean } {
    return this.#store.listTenants(page);
  }

  async changeTenant(name: string, change: TenantChange, by: Origin): Promise<Outcome<TenantDescription>> {
    return await this.#published(name, this.#store.changeTenant(name, change, by, Date.now()));
  }

  /** See {@link DirectoryStore.createKey}. */
  async createKey(
    tenant: string,
    plan: string | undefined,
    key: KeySpec,
    by: Origin,
  ): Promise<Outcome<KeyDescription>> {
    return await this.#published(tenant, this.#store.createKey(tenant, plan, key, by, Date.now()));
  }

  key(id: string): Outcome<KeyDescription> {
    const key = this.#store.key(id);
    return key ? { value: describeKey(key, Date.now()) } : noKey(id);
  }

  listKeys(tenant: string, page: Page): Outcome<{ keys: KeyDescription[]; more: boolean }> {
    return this.#store.listKeys(tenant, page, Date.now());
  }

  async changeKey(id: string, change: KeyChange, by: Origin): Promise<Outcome<KeyDescription>> {
    return await this.#publishedKey(id, this.#store.changeKey(id, change, by, Date.now()));
  }

  async revokeKey(id: string, by: Origin): Promise<Outcome<KeyDescription>> {
    return await this.#publishedKey(id, this.#store.revokeKey(id, by, Date.now()));
  }

  /** See {@link DirectoryStore.rotateKey}. */
  async rotateKey(
    id: string,
    next: Omit<NewKey, "key">,
    overlapMs: number,
    by: Origin,
  ): Promise<Outcome<{ created: KeyDescription; replaced: KeyDescription }>> {
    return await this.#publishedKey(id, this.#store.rotateKey(id, next, overlapMs, by, Date.now()));
  }

  audit(page: Page, tenant: string | undefined): { entries: AuditDescription[]; more: boolean } {
    return this.#store.audit.list(page, tenant);
  }

  override async alarm(): Promise<void> {
    const pending = this.#publication.pending();
    if (pending.length === 0) return;
    const told = [];
    for (const name of pending) told.push(await this.#publication.publish(name));
    if (this.#publication.pending().length === 0) return;
    await this.ctx.storage.setAlarm(Date.now() + (told.includes(false) ? RETRY_MS : CONTINUE_MS));
  }

  async #publishedKey<T>(id: string, outcome: Outcome<T>): Promise<Outcome<T>> {
    const key = this.#store.key(id);
    return key ? await this.#published(key.tenant, outcome) : outcome;
  }

  /** Answers once the change counts. */
  async #published<T>(tenant: string, outcome: Outcome<T>): Promise<Outcome<T>> {
    if ("problem" in outcome) return outcome;
    // Set with the change itself: whatever happens next, it is published.
    await this.ctx.storage.setAlarm(Date.now() + RETRY_MS);
    if (!(await this.#publication.publish(tenant))) {
      const message = "The change is stored, but the account cannot be reached: it counts from when it can be.";
      return { problem: { code: "upstream_unavailable", message } };
    }
    if (this.#publication.pending().length === 0) await this.ctx.storage.deleteAlarm();
    return outcome;
  }
}

/** The directory of this deployment. */
export function directoryOf(env: Env): DurableObjectStub<Directory> {
  return env.DIRECTORY.getByName("directory");
}
