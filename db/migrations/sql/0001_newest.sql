-- A wallet is its newest entry, and never an older one of its own. A part of the ledger.
--
-- The foreign key wallet_equals_its_newest_entry is satisfied by any entry of the wallet's: a row
-- that went back to an older one, with that one's balance, would pass it. This refuses that. It asks
-- for a newer entry, so that a wallet whose newest entries are gone can still be rebuilt; and only
-- where the number falls, which costs nothing where it rises.
CREATE FUNCTION wallet_goes_back() RETURNS trigger
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    IF EXISTS (SELECT FROM wallet_entries
               WHERE organization_id = NEW.organization_id AND entry_no > NEW.entry_no) THEN
        RAISE EXCEPTION 'the wallet of % has a newer entry than %', NEW.organization_id, NEW.entry_no
            USING ERRCODE = 'check_violation', TABLE = 'wallets',
                  CONSTRAINT = 'wallets_never_go_back';
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER wallets_never_go_back AFTER UPDATE ON wallets FOR EACH ROW
    WHEN (NEW.entry_no < OLD.entry_no) EXECUTE FUNCTION wallet_goes_back();
REVOKE ALL ON FUNCTION wallet_goes_back FROM PUBLIC;
