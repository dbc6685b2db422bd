/** Secrets of the tests: they open nothing. */
export const TEST_SERVICE_SECRET = "service-secret-of-the-tests";
export const TEST_ADMIN_SECRET = "admin-secret-of-the-tests";
