/** Secrets of the tests: they open nothing. */
export const TEST_SERVICE_SECRET = "service-secret-of-the-tests";
export const TEST_ADMIN_SECRET = "admin-secret-of-the-tests";
/** Signs billing events in the tests. */
export const TEST_WEBHOOK_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
